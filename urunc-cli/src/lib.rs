//! The composition of the libraries into an OCI runtime.
//!
//! | module | what it is for |
//! |---|---|
//! | [`args`] | the command line's grammar |
//! | [`commands`] | from arguments to verbs, and from results to output |
//! | [`lifecycle`] | the verbs: create, start, kill, pause, update, events, delete, run, state, list |
//! | [`bundle`] | what the caller hands over: `config.json`, annotations, `urunc.json` |
//! | [`cgroup`] | the container's control group |
//! | [`config`] | what the administrator decided |
//! | [`sandbox`] | the process that becomes the monitor |
//! | [`shim`] | the process between containerd and a pod's containers: the second binary |
//! | [`timestamps`] | when each step was taken, for measurements |
//! | `procfs` | reading what the kernel makes up |
//! | [`logger`], [`report`] | what people and containerd read |
#![deny(missing_docs)]
#![deny(unsafe_code)]

pub mod args;
pub mod bundle;
pub mod cgroup;
pub mod commands;
pub mod config;
pub mod lifecycle;
pub mod logger;
mod procfs;
pub mod report;
pub mod sandbox;
pub mod shim;
pub mod timestamps;
