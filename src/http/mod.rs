//! stub
mod gated;
pub mod server;
