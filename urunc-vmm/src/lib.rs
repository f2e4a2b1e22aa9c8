//! A container's machine: guests, monitors, command lines, control sockets, stopping.
//!
//! A [`Machine`] is described once; a [`Workload`] says what runs in it; a [`Monitor`] plans how to execute itself for
//! it. Plans are data: nothing here opens a file, and nothing is joined into a string that is split again.
//!
//! ```
//! use std::path::PathBuf;
//! use urunc_vmm::{Arch, Guest, Host, Kernel, KvmAccess, Machine, Memory, Monitor, Workload, kernel};
//!
//! # let mut file = vec![0; 1024];
//! # file[0x202..0x206].copy_from_slice(b"HdrS");
//! # let file = std::io::Cursor::new(file);
//! // What is the kernel? `file` is anything that can be read, here a `File`.
//! let image = kernel::inspect(file)?;
//!
//! let host = Host {
//!     arch: Arch::X86_64,
//!     kvm: KvmAccess::Unusable { reason: "there is no /dev/kvm".into() },
//!     program: PathBuf::from("/usr/bin/qemu-system-x86_64"),
//!     data_dir: None,
//! };
//! let mut machine = Machine::new(Kernel { path: "/boot/kernel".into(), image }, Memory::mib(64));
//! let workload = Workload::new(Guest::Generic, vec!["hello".into(), "exit=3".into()]);
//! machine.boot = workload.boot(&machine, Monitor::Qemu, host.arch)?;
//!
//! let launch = Monitor::Qemu.plan(&machine, &host)?;
//! assert!(launch.args.windows(2).any(|pair| pair == ["-append", "hello exit=3"]));
//! assert_eq!(launch.warnings.len(), 1); // emulated, and why
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! What works with what, and how each value reaches a guest, is in the crate's `GUESTS.md`.
//!
//! # What it leaves to others
//! Running the monitor (descriptors, namespaces, `execve`), making TAP devices and disks, deciding which root file
//! system a guest gets, and remembering any of it.
#![deny(missing_docs)]
#![forbid(unsafe_code)]

pub mod control;
mod device;
mod guest;
mod host;
pub mod kernel;
mod launch;
mod machine;
mod memory;
mod monitor;
pub mod stop;

pub use control::{Control, ControlError, Protocol};
pub use device::{
    Access, Attachment, Console, DeviceError, DeviceId, Disk, MacAddr, NetBackend, NetDevice, Share,
    ShareKind, TapName, Vsock,
};
pub use guest::{
    AddressError, Board, Boot, Character, CommandLine, CommandLineError, ConfigPlace, EncodeError, ExitPort,
    Guest, GuestConfig, InterfaceAddress, Item, Network, Omission, Platform, PowerButton, Root, Route,
    UnknownGuest, VirtioPci, Volume, Workload,
};
pub use host::{Arch, Host, KvmAccess, UnknownArch};
pub use kernel::KernelImage;
pub use launch::{ControlPoint, Document, Inherit, Launch, OnReset, Role, Shutdown, Unasked, Warning};
pub use machine::{ControlSocket, Kernel, Kvm, Machine, Seccomp, Startup};
pub use memory::{Memory, MemoryBounds, MemoryError};
pub use monitor::{
    Capabilities, DeviceNode, Firmware, HostFiles, KernelMismatch, KvmNeed, Monitor, PlanError, TapHandover,
    UnknownMonitor,
};
