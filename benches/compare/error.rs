//! Why a measurement could not be made.

use std::io;

/// One error for the whole program: it is read by the person at the terminal, nobody else.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BenchError {
    #[error("cannot {what}")]
    System {
        what: String,
        #[source]
        source: io::Error,
    },
    #[error("{program} failed ({status}): {text}")]
    Command { program: String, status: String, text: String },
    #[error("nothing was printed by the container of {runtime} within {seconds} s")]
    Silent { runtime: &'static str, seconds: u64 },
    #[error("{path} is missing; {remedy}")]
    Missing { path: String, remedy: &'static str },
    #[error("cannot write the results as JSON")]
    Json(#[from] serde_json::Error),
    #[error("cannot attach a network")]
    Attach(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("{0}")]
    Unexpected(String),
}

pub(crate) type Result<T> = std::result::Result<T, BenchError>;

/// Says what was being done when the system refused.
pub(crate) trait Context<T> {
    fn to(self, what: impl Into<String>) -> Result<T>;
}

impl<T, E: Into<io::Error>> Context<T> for std::result::Result<T, E> {
    fn to(self, what: impl Into<String>) -> Result<T> {
        self.map_err(|error| BenchError::System { what: what.into(), source: error.into() })
    }
}
