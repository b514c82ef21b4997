//! What of the Model Context Protocol a proxy has to understand. Pure; bodies are read and never
//! written.

pub mod event_boundary;
pub mod methods;
