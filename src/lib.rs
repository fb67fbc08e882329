//! tally

pub mod embedded;
