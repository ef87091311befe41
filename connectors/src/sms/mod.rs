//! Text messages: one folder a gateway's protocol, and what every gateway needs.
//!
//! [`mitake`] speaks to 三竹. [`phone`] knows the one form of a mobile number that is compared and signed;
//! [`callback_address`] makes the signed per-message addresses to which a gateway reports what became of a message.

pub mod callback_address;
pub mod mitake;
pub mod phone;
