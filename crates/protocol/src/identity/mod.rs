//! Who is the person that approves a client.

pub mod backoff;
pub mod password;
