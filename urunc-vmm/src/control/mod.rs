//! Talking to a running monitor.
mod events;
pub use events::{Watched, watch};
