//! Stores: where the registry, the ledger, the receipts and the tokens are kept.
//!
//! What the engine asks of a store are the engine's ports. What commands ask of it beside a running engine, wherever it
//! lies, is here: [`books`], [`terms`] and [`tokens`].

pub mod books;
#[cfg(test)]
mod books_contract;
pub mod cql;
pub mod embedded;
pub mod terms;
#[cfg(test)]
mod terms_contract;
pub mod tokens;
#[cfg(test)]
mod tokens_contract;
