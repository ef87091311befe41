//! Standard error: what people are told beside the result.

use std::fmt::Display;
use std::io::Write as _;

/// Says `line`. `eprintln!` would panic when the reader has gone; where nobody reads, there is nobody to tell that it could
/// not be said.
pub(crate) fn say(line: impl Display) {
    writeln!(std::io::stderr(), "{line}").ok();
}
