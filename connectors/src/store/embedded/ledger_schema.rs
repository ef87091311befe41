//! The tables of the ledger, the claims, the charges and the bill in `store.db`.
//!
//! The ledger only grows, in the order written: `seq`. Whatever must be unique begins with what grows too,
//! partition and offset or the day, so that new rows land where the last ones did; a wide random key would
//! cost six times as much. Nothing here names a person other than by code: no phone, no name, no card. An
//! operator may read it with `sqlite3`: times are milliseconds since 1970 (`datetime(at / 1000,
//! 'unixepoch')`), days are days since 1970.

use crate::sqlite::Schema;

/// The ledger's part of `store.db`.
pub(super) const LEDGER: Schema =
    Schema { name: "ledger", steps: &[FIRST, AWAITING_BY_PARTITION, CLAIMS_SAY_HOW_THEY_ENDED, CHECKSUMS] };

/// Over each entry; none on what was written before there were any.
const CHECKSUMS: &str = "ALTER TABLE entries ADD COLUMN checksum INTEGER;";

/// Receipts are asked for by the owner of a partition.
const AWAITING_BY_PARTITION: &str = "
DROP INDEX awaiting_by_lane;
CREATE INDEX awaiting_by_partition ON awaiting (partition, lane, seq);
";

/// How the notice of an ended claim ended. Of those that ended before, nobody knows any more.
const CLAIMS_SAY_HOW_THEY_ENDED: &str = "
ALTER TABLE claims ADD COLUMN end_event TEXT;
ALTER TABLE claims ADD COLUMN end_reason TEXT;
UPDATE claims SET end_event = 'failed', end_reason = 'unknown' WHERE state = 'ended';
";

const FIRST: &str = "
CREATE TABLE entries (
    seq        INTEGER PRIMARY KEY,
    partition  INTEGER NOT NULL,
    offset     INTEGER NOT NULL,
    notice     BLOB    NOT NULL CHECK (length(notice) = 16),
    event      TEXT    NOT NULL,
    attempt    INTEGER NOT NULL,
    pupil      TEXT    NOT NULL,
    guardian   TEXT    NOT NULL,
    channel    TEXT    NOT NULL,
    kind       TEXT    NOT NULL,
    day        INTEGER NOT NULL,
    at         INTEGER NOT NULL,
    time       INTEGER NOT NULL,
    order_code TEXT,
    gateway    TEXT,
    gateway_id TEXT,
    reason     TEXT,
    UNIQUE (partition, offset, notice, event, attempt)
) STRICT;
CREATE INDEX entries_by_pupil ON entries (day, pupil);
CREATE INDEX entries_by_sms ON entries (day) WHERE channel = 'sms';

-- Where a day's entries begin and end, so that an export need not search.
CREATE TABLE ledger_days (
    day       INTEGER PRIMARY KEY,
    first_seq INTEGER NOT NULL,
    last_seq  INTEGER NOT NULL
) STRICT;

-- Submitted and without an end: the seq of the last `submitted` entry.
CREATE TABLE awaiting (
    partition INTEGER NOT NULL,
    offset    INTEGER NOT NULL,
    notice    BLOB    NOT NULL,
    lane      TEXT    NOT NULL,
    day       INTEGER NOT NULL,
    seq       INTEGER NOT NULL,
    PRIMARY KEY (partition, offset, notice)
) STRICT, WITHOUT ROWID;
CREATE INDEX awaiting_by_lane ON awaiting (lane, seq);

-- One sender of an SMS; changed by compare-and-set only, never deleted.
CREATE TABLE claims (
    day        INTEGER NOT NULL,
    term       TEXT    NOT NULL,
    pupil      TEXT    NOT NULL,
    guardian   TEXT    NOT NULL,
    kind       TEXT    NOT NULL,
    notice     BLOB    NOT NULL CHECK (length(notice) = 16),
    partition  INTEGER NOT NULL,
    offset     INTEGER NOT NULL,
    owner      BLOB    NOT NULL CHECK (length(owner) = 16),
    attempt    INTEGER NOT NULL,
    lane       TEXT    NOT NULL,
    claimed_at INTEGER NOT NULL,
    deadline   INTEGER NOT NULL,
    state      TEXT    NOT NULL CHECK (state IN ('open', 'refused', 'submitted', 'ended')),
    gateway_id TEXT,
    PRIMARY KEY (day, term, pupil, guardian, kind),
    CHECK ((state = 'submitted') = (gateway_id IS NOT NULL))
) STRICT, WITHOUT ROWID;

-- One delivered SMS on an order's account; `adjusted` ones came after its bill was frozen and count for no counter.
CREATE TABLE charges (
    term       TEXT    NOT NULL,
    pupil      TEXT    NOT NULL,
    guardian   TEXT    NOT NULL,
    order_code TEXT    NOT NULL,
    day        INTEGER NOT NULL,
    kind       TEXT    NOT NULL,
    notice     BLOB    NOT NULL CHECK (length(notice) = 16),
    adjusted   INTEGER NOT NULL CHECK (adjusted IN (0, 1)),
    PRIMARY KEY (term, pupil, guardian, order_code, day, kind)
) STRICT, WITHOUT ROWID;
CREATE INDEX charges_by_day ON charges (day);

-- The number of an order's charges, always written as the whole total.
CREATE TABLE counters (
    term       TEXT    NOT NULL,
    pupil      TEXT    NOT NULL,
    guardian   TEXT    NOT NULL,
    order_code TEXT    NOT NULL,
    delivered  INTEGER NOT NULL,
    PRIMARY KEY (term, pupil, guardian, order_code)
) STRICT, WITHOUT ROWID;

-- Lines of the bill that are final, as they were when they became so. Money in whole NT$.
CREATE TABLE frozen_lines (
    term       TEXT    NOT NULL,
    order_code TEXT    NOT NULL,
    school     TEXT    NOT NULL,
    pupil      TEXT    NOT NULL,
    guardian   TEXT    NOT NULL,
    plan       TEXT    NOT NULL,
    state      TEXT    NOT NULL,
    prepaid    INTEGER NOT NULL,
    delivered  INTEGER NOT NULL,
    fee        INTEGER NOT NULL,
    waived     INTEGER NOT NULL,
    refund     INTEGER NOT NULL,
    frozen_at  INTEGER NOT NULL,
    frozen_by  TEXT    NOT NULL,
    PRIMARY KEY (term, order_code)
) STRICT, WITHOUT ROWID;

CREATE TABLE closed_terms (
    term      TEXT    PRIMARY KEY,
    closed_at INTEGER NOT NULL,
    closed_by TEXT    NOT NULL,
    forced    INTEGER NOT NULL CHECK (forced IN (0, 1))
) STRICT, WITHOUT ROWID;
";
