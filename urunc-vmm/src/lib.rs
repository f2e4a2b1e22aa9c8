//! a container's machine: guests, monitors, command lines, control sockets
#![deny(missing_docs)]
