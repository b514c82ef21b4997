//! Who is the person that approves a client.

pub mod password;
