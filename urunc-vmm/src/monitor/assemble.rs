//! What every monitor's plan is assembled from: checks that are the same for all, descriptor numbers, and paths.

use std::{collections::HashSet, path::Path};

use super::{Monitor, PlanError};
use crate::{
    Arch, Character, ConfigPlace, Console, DeviceId, Document, Inherit, Machine, Memory, Role, Warning,
    host::Host, launch::FIRST_FD,
};

const CONFIG: &str = "guest configuration";

/// The argument vector in the making.
#[derive(Debug, Default)]
pub(super) struct Args(pub(super) Vec<String>);

impl Args {
    pub(super) fn one(&mut self, arg: impl Into<String>) {
        self.0.push(arg.into());
    }

    /// Adds an option with its value as the next element.
    pub(super) fn pair(&mut self, name: &str, value: impl Into<String>) {
        self.0.extend([name.to_owned(), value.into()]);
    }
}

/// Assigns descriptor numbers, in order, from [`FIRST_FD`] on.
#[derive(Debug, Default)]
pub(super) struct Descriptors {
    pub(super) documents: Vec<Document>,
    pub(super) inherit: Vec<Inherit>,
}

impl Descriptors {
    /// Adds a descriptor to inherit, and returns its number.
    pub(super) fn inherit(&mut self, role: Role) -> i32 {
        let fd = self.next();
        self.inherit.push(Inherit { role, fd });
        fd
    }

    /// Adds a document, and returns the path under which the monitor opens it.
    pub(super) fn document(&mut self, name: &str, contents: Vec<u8>) -> String {
        let fd = self.next();
        self.documents.push(Document { name: name.to_owned(), contents, fd });
        format!("/proc/self/fd/{fd}")
    }

    fn next(&self) -> i32 {
        let used = self.documents.len() + self.inherit.len();
        FIRST_FD.saturating_add(i32::try_from(used).unwrap_or(i32::MAX))
    }
}

/// Checks memory, CPUs and command line against what the monitor can do; returns the memory that the guest gets.
pub(super) fn check(
    monitor: Monitor,
    machine: &Machine,
    host: &Host,
    warnings: &mut Vec<Warning>,
) -> Result<Memory, PlanError> {
    let able = monitor.capabilities(host.arch);
    let memory = able.fit_memory(monitor, machine.memory)?;
    if memory != machine.memory {
        warnings.push(Warning::MemoryRounded { asked: machine.memory, given: memory });
    }
    if let Some(elf) = machine.kernel.image.format.elf() {
        let end = elf.end().saturating_sub(ram_base(monitor, host.arch));
        if end > memory.as_bytes() {
            return Err(PlanError::KernelTooLarge { end, memory });
        }
    }
    if machine.vcpus.get() > able.max_vcpus {
        let (asked, max) = (machine.vcpus.get(), able.max_vcpus);
        return Err(PlanError::Vcpus { monitor, asked, max });
    }
    let (size, max) = (machine.boot.command_line.as_str().len(), able.max_command_line);
    if size > max {
        return Err(PlanError::CommandLineTooLong { monitor, size, max });
    }
    if let Some(net) = machine.nets.iter().find(|net| net.mtu < able.min_mtu) {
        return Err(PlanError::Mtu { monitor, asked: net.mtu, min: able.min_mtu });
    }
    check_devices(monitor, machine, able.max_devices)?;
    if let Some(vsock) = machine.vsock.as_ref().filter(|vsock| !(3..u32::MAX).contains(&vsock.cid)) {
        return Err(PlanError::VsockCid { asked: vsock.cid });
    }
    no_duplicates("disks", machine.disks.iter().map(|disk| &disk.id))?;
    no_duplicates("shared directories", machine.shares.iter().map(|share| &share.tag))?;
    Ok(memory)
}

/// Refuses more devices than there is room for.
pub(super) fn check_devices(monitor: Monitor, machine: &Machine, max: usize) -> Result<(), PlanError> {
    let config = config_for(machine, &ConfigPlace::LastDisk).is_some();
    let console = machine.console == Console::Virtio;
    let single = [config, console, machine.vsock.is_some()].into_iter().filter(|it| *it).count();
    let asked = machine.nets.len() + machine.disks.len() + machine.shares.len() + single;
    if asked > max {
        return Err(PlanError::TooManyDevices { monitor, asked, max });
    }
    Ok(())
}

/// The address at which the guest's memory begins (QEMU hw/arm/virt.c, `VIRT_MEM`). The other monitors load no ELF on Arm.
const fn ram_base(monitor: Monitor, arch: Arch) -> u64 {
    match (monitor, arch) {
        (Monitor::Qemu, Arch::Aarch64) => 0x4000_0000,
        _ => 0,
    }
}

fn no_duplicates<'a>(
    what: &'static str,
    mut ids: impl Iterator<Item = &'a DeviceId>,
) -> Result<(), PlanError> {
    let mut seen = HashSet::new();
    match ids.find(|id| !seen.insert(*id)) {
        Some(id) => Err(PlanError::Duplicate { what, id: id.clone() }),
        None => Ok(()),
    }
}

/// Refuses a command line that is not ASCII, for monitors whose loader does (linux-loader `src/cmdline`).
pub(super) fn ascii_command_line(monitor: Monitor, machine: &Machine) -> Result<&str, PlanError> {
    let line = machine.boot.command_line.as_str();
    match line.chars().find(|c| !c.is_ascii()) {
        Some(character) => Err(PlanError::CommandLineCharacter { monitor, character: Character(character) }),
        None => Ok(line),
    }
}

/// Returns the path of the initial ramdisk, which may be the guest's configuration.
pub(super) fn initrd(machine: &Machine, descriptors: &mut Descriptors) -> Result<Option<String>, PlanError> {
    match (&machine.initrd, config_for(machine, &ConfigPlace::Initrd)) {
        (Some(_), Some(_)) => Err(PlanError::TwoInitrds),
        (None, Some(contents)) => Ok(Some(descriptors.document(CONFIG, contents.to_vec()))),
        (Some(initrd), None) => Ok(Some(path("the initrd's path", initrd)?.to_owned())),
        (None, None) => Ok(None),
    }
}

/// Returns the path of the disk after all others that is the guest's configuration.
pub(super) fn config_disk(machine: &Machine, descriptors: &mut Descriptors) -> Option<String> {
    let contents = config_for(machine, &ConfigPlace::LastDisk)?;
    Some(descriptors.document(CONFIG, contents.to_vec()))
}

fn config_for<'a>(machine: &'a Machine, place: &ConfigPlace) -> Option<&'a [u8]> {
    let config = machine.boot.config.as_ref().filter(|config| config.place == *place)?;
    Some(&config.contents)
}

/// Returns a path as text: absolute, so that no monitor takes it for an option, a protocol or a descriptor.
pub(super) fn path<'a>(what: &'static str, path: &'a Path) -> Result<&'a str, PlanError> {
    if !path.is_absolute() {
        return Err(PlanError::RelativePath { what, path: path.to_owned() });
    }
    path.to_str().ok_or_else(|| PlanError::NotUtf8 { what, path: path.to_owned() })
}
