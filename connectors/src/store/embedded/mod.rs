//! The embedded store: SQLite files in the data directory, no server. Each part owns its tables and brings its own
//! schema; parts in the same file are told apart by the names of their schemas.
