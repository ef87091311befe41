//! The entrances for fuzzing: what production reads Mitake's answers with.

use compact_str::CompactString;
use gatebell_engine::ports::channel::SubmitOutcome;
use gatebell_engine::ports::receipts::ReceiptStatus;

use super::reply;

/// What the answer to a submit says of the messages that are called `references`, in that order, and of the account's
/// points.
pub fn read_submit(body: &[u8], references: &[&str]) -> (Vec<SubmitOutcome>, Option<i64>) {
    let said = reply::read_submit(body, references);
    (said.outcomes, said.points)
}

/// What the answer to a query says of messages, or why it says nothing.
pub fn read_query(body: &[u8]) -> Result<Vec<(CompactString, ReceiptStatus)>, String> {
    reply::read_query(body).map_err(|refusal| refusal.to_string())
}

/// The points left, or why there are none.
pub fn read_balance(body: &[u8]) -> Result<i64, String> {
    reply::read_balance(body).map_err(|refusal| refusal.to_string())
}
