//! a container's network: namespace executor, netlink, TAP devices, traffic redirection
#![deny(missing_docs)]
