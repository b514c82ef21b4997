//! Where clients, grants and codes live: SQLite or PostgreSQL behind [`protocol::ports::Store`].
//!
//! | Module | What it is |
//! | --- | --- |
//! | `sql` | the five verbs and the sweep, the same statements for both databases |
//! | `writer` | the one SQLite connection that writes: many writes, one commit |
//! | `sqlite`, `postgres` | opening each |
//! | `migrations` | the tables, version by version |
//! | `sqlite_file` | which file, that it is ours alone, and that it holds a database |
//! | `open_error` | why a store did not open, and what to do |

mod migrations;
mod open_error;
mod postgres;
mod sql;
mod sqlite;
mod sqlite_file;
mod writer;

pub use self::{open_error::OpenError, sql::SqlStore};
