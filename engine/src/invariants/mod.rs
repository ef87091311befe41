//! What must hold, numbered: for each promise its number, its sentence, and what happens where it does not hold.
//!
//! Whether one holds is asked by the [`predicates`]: functions over plain data, which the engine asks of what it has at hand.
//! In the simulation a breach that the engine notices is a failure, and so is one that only the judge of the whole day sees,
//! with a naive model beside it. In production a [`Watch`] counts it in
//! `gatebell_invariant_violations_total` and logs it with its position, and the engine goes on: a parent who waits is worse
//! served by an engine that stopped. Only where going on would do what cannot be taken back (a message that leaves, money
//! that is charged, an offset that is committed) that one thing is held back. Each invariant says which, and where nothing
//! can be checked at run time, why.

pub mod predicates;
#[cfg(test)]
mod tests;
mod watch;

pub use self::watch::{Place, Violation, Watch};

/// A promise of the engine.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Invariant {
    /// One outcome a record; asked of every batch that a shard has decided. The engine goes on: what was decided is right
    /// for its records, and a count that is off harms nobody.
    T1,
    /// No record is decided twice; asked of every batch that a shard has decided. The engine goes on: a notice that is
    /// made again has the same id, so its claim keeps a second SMS from leaving.
    T2,
    /// Commits are of settled records; asked before each commit. The offset is not committed: read again, its records do no
    /// harm, and what lies below a committed offset is never looked at again.
    T3,
    /// One end a notice; asked wherever the entries of a notice are read (receipts, recovery) and when a lane settles one.
    /// The engine goes on: both ends are in the ledger, where an operator can see them. Production allows for the answer that
    /// a former owner of the partition records late, since it cannot tell who wrote an entry.
    N1,
    /// One SMS a kind and day; asked of every SMS as it leaves: does it go out under a claim of its own? If not, it does not
    /// leave. What the gateway took in all is asked by the simulation, which is behind the gateway.
    N2,
    /// Nobody is told who may not be; asked of every message as it leaves: an SMS about a passage names its order, and
    /// binding and protection were looked up just now. If not, it does not leave. That the look-up's answer was right is asked
    /// by the simulation, which knows every change of the registry.
    N3,
    /// Nothing is late; asked of every message when it is made and as it leaves. If it is late, it does not leave.
    N4,
    /// Rate, burst and window; asked of every submit, by an account that the limiter does not keep. The lane holds until
    /// that account allows it: an overrun may cost the city its contract with the gateway. That several processes together
    /// keep to it is asked by the simulation; one process knows its own share only.
    L1,
    /// The most urgent first, and of equals the earliest deadline, whatever the school; asked of every message taken from
    /// what is ready. The engine goes on: what was overtaken leaves next.
    L2,
    /// One charge a notice, on proof; asked of every charge before it is booked and wherever the entries of a notice are
    /// read. What is not proved is not booked: what a parent was not charged can be charged later. What is booked already
    /// stays, for `gatebell recount` to show.
    B1,
    /// Counters equal the recount; asked by `gatebell recount`, which prints each difference. Not asked at run time: the
    /// store writes a counter from the number of its charges, and only a reading of the whole term says something else. The
    /// simulation asks it of the charges of each day.
    B2,
    /// Receipts in any order give the same totals. At run time it is asked, of each receipt, that however many came, one
    /// proof stands in the ledger; the engine goes on, since a charge has a key of its own. That another order of the same
    /// receipts would have given the same is asked by the simulation.
    B3,
    /// The city pays for absence, correction and emergency; asked of every charge before it is booked. It is not booked.
    B4,
    /// A crash changes nothing. Not asked at run time: a process knows one history only. The simulation compares the ledger
    /// with what a run without crashes owes.
    R1,
    /// Nothing personal where many read. Not asked at run time: whoever looked for names in each line would need them all at
    /// hand where lines are written. The simulation searches every line and label, and a test of whole processes every line of
    /// a run, for all that they were given.
    P1,
}

/// What is written down about an invariant.
struct Text {
    number: &'static str,
    sentence: &'static str,
    on_breach: &'static str,
}

impl Invariant {
    /// Every invariant, in the order of the documents.
    pub const ALL: [Self; 15] = [
        Self::T1,
        Self::T2,
        Self::T3,
        Self::N1,
        Self::N2,
        Self::N3,
        Self::N4,
        Self::L1,
        Self::L2,
        Self::B1,
        Self::B2,
        Self::B3,
        Self::B4,
        Self::R1,
        Self::P1,
    ];

    const fn text(self) -> Text {
        let (number, sentence, on_breach) = match self {
            Self::T1 => (
                "T1",
                "Every record that is read ends in exactly one outcome, and the outcomes add up to the records.",
                "goes on",
            ),
            Self::T2 => (
                "T2",
                "Reading a record a second time changes nothing. That is not a duplicate: a duplicate is another record.",
                "goes on",
            ),
            Self::T3 => {
                ("T3", "Below a committed offset nothing is owed any more.", "the offset is not committed")
            }
            Self::N1 => (
                "N1",
                "A notice ends once: delivered, accepted (where no receipts come), failed, expired or suppressed. Only proof of delivery can still turn failed or expired into delivered.",
                "goes on",
            ),
            Self::N2 => (
                "N2",
                "A guardian gets at most one arrival and one departure SMS a day about a pupil.",
                "the message does not leave",
            ),
            Self::N3 => (
                "N3",
                "Nothing is sent without a binding and a subscription or order at the time of the tap; and nothing at all to whoever is unbound or protected at the time of sending.",
                "the message does not leave",
            ),
            Self::N4 => (
                "N4",
                "Nothing is sent past its deadline, and the gateway is told to give up at it.",
                "the message does not leave",
            ),
            Self::L1 => (
                "L1",
                "No gateway gets more than its rate and burst in any stretch of time, nor more at once than its window. A limiter starts empty.",
                "the lane holds",
            ),
            Self::L2 => (
                "L2",
                "An emergency waits only for what is already on the wire; no school is starved.",
                "goes on",
            ),
            Self::B1 => (
                "B1",
                "A notice is charged at most once, and only on final proof.",
                "the charge is not booked",
            ),
            Self::B2 => {
                ("B2", "Counters are what the recount of the ledger says.", "`gatebell recount` says so")
            }
            Self::B3 => ("B3", "Receipts late, repeated or out of order give the same totals.", "goes on"),
            Self::B4 => (
                "B4",
                "Absence, correction and emergency are never charged to a parent.",
                "the charge is not booked",
            ),
            Self::R1 => (
                "R1",
                "A crash anywhere, then a restart, ends in the same ledger as no crash; attempts that were on the wire aside.",
                "asked by tests only",
            ),
            Self::P1 => (
                "P1",
                "Nothing personal and no secret in a log line, a metric's label or an error.",
                "asked by tests only",
            ),
        };
        Text { number, sentence, on_breach }
    }

    /// Its number, as labels and documents have it.
    pub const fn number(self) -> &'static str {
        self.text().number
    }

    /// What it promises, in a sentence.
    pub const fn sentence(self) -> &'static str {
        self.text().sentence
    }

    /// What the engine does where it does not hold, in a few words.
    pub const fn on_breach(self) -> &'static str {
        self.text().on_breach
    }
}
