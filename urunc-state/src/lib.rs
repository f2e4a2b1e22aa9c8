//! who a container is: ids, crash-safe state records, locks, process identity
#![deny(missing_docs)]
