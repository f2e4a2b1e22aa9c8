//! What a guest framework wants from the machine that boots it: the outcome of [`Workload::boot`](super::Workload::boot).

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Character, Omission};

/// What a guest wants from its machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Boot {
    /// The kernel's command line.
    pub command_line: CommandLine,
    /// The board that the kernel expects.
    #[serde(default)]
    pub platform: Platform,
    /// Configuration that the guest reads from elsewhere than its command line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<GuestConfig>,
    /// What of the workload does not reach the guest; worth a line in the log.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub omitted: Vec<Omission>,
}

/// A kernel command line: one line, without control characters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CommandLine(String);

/// A command line with a character that no kernel's can carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a kernel command line cannot carry {0}")]
pub struct CommandLineError(pub Character);

impl CommandLine {
    /// Checks a line.
    ///
    /// # Errors
    /// [`CommandLineError`] if there is a control character (NUL, newline and tab included) in it.
    pub fn new(line: impl Into<String>) -> Result<Self, CommandLineError> {
        let line = line.into();
        match line.chars().find(|c| c.is_control()) {
            Some(character) => Err(CommandLineError(Character(character))),
            None => Ok(Self(line)),
        }
    }

    /// Returns the line.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CommandLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for CommandLine {
    type Error = CommandLineError;

    fn try_from(line: String) -> Result<Self, CommandLineError> {
        Self::new(line)
    }
}

impl From<CommandLine> for String {
    fn from(line: CommandLine) -> Self {
        line.0
    }
}

/// What a kernel expects of the board, where a monitor has a choice (QEMU does).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    /// The board.
    pub board: Board,
    /// The age of virtio devices on a PCI bus.
    pub virtio_pci: VirtioPci,
    /// Whether the guest can end with a status of its own through QEMU's `isa-debug-exit`.
    pub exit_port: ExitPort,
    /// Whether the guest does something when its power button is pressed.
    pub power_button: PowerButton,
}

/// The kind of board.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Board {
    /// A small one: UART, virtio over MMIO, no PCI. Boots fastest.
    #[default]
    Small,
    /// A small one with the legacy timers and interrupt controller, as FreeBSD wants it.
    SmallWithTimers,
    /// A common PC (or, on Arm, the `virt` board): PCI, ACPI, firmware.
    Common,
}

/// The age of virtio devices on a PCI bus (virtio 1.2, 4.1.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VirtioPci {
    /// Old and new drivers find what they look for.
    #[default]
    Transitional,
    /// New drivers only: the driver takes a transitional device for an old one, and fails.
    Modern,
}

/// Whether the guest ends through a port that gives the monitor an exit status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExitPort {
    /// There is none.
    #[default]
    None,
    /// QEMU's `isa-debug-exit` at its default port, 0x501: a guest that writes `v` ends QEMU with `(v << 1) | 1`.
    DebugExit,
}

/// Whether the guest acts on its power button (or Ctrl-Alt-Del where there is no button).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PowerButton {
    /// It ends itself.
    #[default]
    Acts,
    /// It has no driver for it; asking would only waste the time until it is killed.
    Ignored,
}

/// A file of configuration that a guest reads when it starts.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestConfig {
    /// Its contents; they may hold secrets of the container's environment.
    pub contents: Vec<u8>,
    /// Where the guest looks for it.
    pub place: ConfigPlace,
}

impl fmt::Debug for GuestConfig {
    /// Shows the size in place of the contents, which may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuestConfig")
            .field("bytes", &self.contents.len())
            .field("place", &self.place)
            .finish()
    }
}

/// Where a guest looks for its configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConfigPlace {
    /// A file of the initial ramdisk. The caller takes it out of [`Boot::config`] and writes it there before the monitor
    /// starts; a plan for a machine that still has it is refused.
    InitrdFile(String),
    /// It is the initial ramdisk. The plan hands it over as a document.
    Initrd,
    /// A disk after all others. The plan hands it over as a document.
    LastDisk,
}
