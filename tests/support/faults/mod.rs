//! A daemon of its own for a test, requests to it byte by byte, and faults on order.

pub mod daemon;
pub mod shim;
pub mod wire;
