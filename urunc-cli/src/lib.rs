//! The composition of the libraries into the runtime.
