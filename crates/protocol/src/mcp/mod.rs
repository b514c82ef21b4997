//! What of the Model Context Protocol a proxy has to understand: which revision a request speaks,
//! which session it means, and what an answer is about. Pure; bodies are read and never written.

pub mod answer;
pub mod era;
pub mod message;
pub mod opening;
pub mod repeated;
pub mod revision;
pub mod session;
