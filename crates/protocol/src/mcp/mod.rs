//! What of the Model Context Protocol a proxy has to understand: which revision a request speaks,
//! which session it means, and what an answer is about. Pure; bodies are read and never written.

pub mod answer;
pub mod era;
pub mod event_boundary;
pub mod message;
pub mod methods;
pub mod opening;
pub mod repeated;
pub mod revision;
pub mod session;
