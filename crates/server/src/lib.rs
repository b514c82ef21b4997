//! What the proxy needs of an operating system.

pub mod listen;
pub mod upstream;
