//! What a container's machine and its monitor's root are to be, decided at create from the bundle, the configuration, the
//! image and the host. Whatever can be found wrong is found wrong here, before anything is acquired.
//!
//! What start needs of it is [`Frozen`] into the record: neither a changed configuration nor a changed image can make
//! the second half of a container's life disagree with the first.

use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use urunc_netns::{Handover, Mode};
use urunc_rootfs::root::{
    self, BootFile, ByteSize, Delivery, Device, DeviceNode, HostBind, HostLayout, MonitorRoot, Needs, Owner,
    Proc, Scratch, Source, Target, Use,
};
use urunc_rootfs::{Access, Image, ImageError, MountTable};
use urunc_state::Record;
use urunc_vmm::kernel::solo5::{self, DeviceKind};
use urunc_vmm::kernel::{self, InspectError};
use urunc_vmm::{
    Arch, Attachment, ConfigPlace, ControlPoint, DeviceError, EncodeError, Firmware, Guest, Host, Kernel,
    KernelImage, KvmAccess, KvmNeed, Launch, MacAddr, Machine, Memory, Monitor, NetBackend, NetDevice,
    Network, Omission, Seccomp, Shutdown, TapHandover, UnknownArch, Warning, Workload,
};

use super::create::{CgroupDriver, Decision};
use super::disk::{self, DiskError, DiskPlan, FrozenDisk};
use super::error::StartError;
use super::{LifecycleError, network, probe};
use crate::bundle::annotations::BINARY;
use crate::bundle::{Bundle, ContainerSpec, GuestConfig, Hooks, ImagePath, NamespaceKind, knative};
use crate::config::{self, Config, HostNetwork, MonitorConfig};
use crate::procfs;
use crate::sandbox::seccomp::{Filters, SeccompError};

/// Room for a directory with a socket in it.
const SOCKET_ROOM: ByteSize = ByteSize(64 * 1024);
/// By which the host's kernel moves packets (linux/vhost.h).
pub(super) const VHOST_NET: &str = "/dev/vhost-net";
/// Where the monitor sees the kernel.
const KERNEL: &str = "/boot/kernel";

/// Why a container cannot be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// The host's architecture has no monitors.
    #[error(transparent)]
    Arch(#[from] UnknownArch),
    /// The monitor's binary is not where the configuration says.
    #[error(
        "cannot use {path} as the monitor {monitor}; correct monitors.{monitor}.path in the configuration"
    )]
    ConfiguredProgram {
        /// The monitor.
        monitor: Monitor,
        /// The configured path.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The monitor is not installed.
    #[error(
        "cannot find the monitor {monitor}: no {program} in PATH; install it, or set monitors.{monitor}.path in the \
         configuration"
    )]
    NoProgram {
        /// The monitor.
        monitor: Monitor,
        /// The name that was searched for.
        program: &'static str,
    },
    /// The image cannot be read.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// A file that an annotation names is not there.
    #[error("cannot use the file that {key} names")]
    File {
        /// The annotation.
        key: &'static str,
        /// What is wrong with the file.
        #[source]
        source: ImageError,
    },
    /// The file is no kernel.
    #[error("cannot use {path} of the image as the kernel")]
    NotKernel {
        /// Its path in the image.
        path: ImagePath,
        /// What is wrong with it.
        #[source]
        source: InspectError,
    },
    /// The monitor cannot run it.
    #[error("cannot run {path} of the image")]
    Machine {
        /// The kernel's path in the image.
        path: PathBuf,
        /// What the monitor lacks.
        #[source]
        source: urunc_vmm::PlanError,
    },
    /// The guest's command line cannot carry what it must.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// The container is in the host's network namespace.
    #[error(
        "linux.namespaces has no network namespace, and a guest cannot take the host's place in its own network; add one, \
         or set runtime.host_network = \"none\" in the configuration for guests without network"
    )]
    HostNetwork,
    /// QEMU would not start.
    #[error(
        "cannot find QEMU's firmware {name} in {looked}; install it (in Debian, qemu-system-data and seabios), or set \
         monitors.qemu.data_path in the configuration"
    )]
    Firmware {
        /// The file's name.
        name: String,
        /// The directories.
        looked: String,
    },
    /// The kernel cannot move packets.
    #[error(
        "cannot use {VHOST_NET}, which monitors.qemu.vhost in the configuration wants; load the module vhost_net, or set it to \
         false"
    )]
    Vhost {
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A placeholder for the network device is none; cannot happen.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// Host facts cannot be found out.
    #[error("cannot look at {path}")]
    Probe {
        /// What was looked at.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The monitor's root cannot be laid out.
    #[error(transparent)]
    Root(#[from] root::PlanError),
    /// The guest's disk cannot be had.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The seccomp profile cannot be applied.
    #[error(transparent)]
    Seccomp(#[from] SeccompError),
    /// A path cannot appear in the monitor's root.
    #[error(transparent)]
    Target(#[from] root::BadTarget),
}

/// How a guest gets a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum NetworkAccess {
    /// Not at all: the container has no network namespace of its own.
    None,
    /// In place of the container's interface.
    Dynamic,
    /// Behind it, as Knative's user containers do.
    Static,
}

/// What start needs: everything but the network, which exists only then.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Frozen {
    /// The monitor.
    monitor: Monitor,
    /// What it runs on.
    host: Host,
    /// The kernel's path in the image, for messages.
    kernel: PathBuf,
    /// The machine, without what the guest's framework makes of it.
    machine: Machine,
    /// What runs in it.
    workload: Workload,
    /// How the guest gets a network, if it may have one.
    network: NetworkAccess,
    /// Who moves its packets.
    #[serde(default)]
    pub(super) backend: NetBackend,
    /// The container's `resolv.conf` on the host, from which the guest's name servers are taken.
    resolv_conf: Option<PathBuf>,
    /// The name under which the image says that its Solo5 manifest declares the network device.
    solo5_net: Option<String>,
    /// What start does for its disk.
    pub(super) disk: FrozenDisk,
    /// Whom the monitor runs as, in the ids of the host.
    pub(super) uid: u32,
    /// Its group.
    pub(super) gid: u32,
    /// How the monitor is asked to end.
    pub(super) shutdown: Shutdown,
    /// What is run at which point of the container's life.
    #[serde(default)]
    pub(super) hooks: Hooks,
    /// Where it is asked, if by a control interface.
    pub(super) control: Option<ControlPoint>,
}

impl Frozen {
    /// What create recorded.
    pub(super) fn of(record: &Record) -> Result<Self, serde_json::Error> {
        record.urunc.machine.read()
    }

    /// Bytes that the monitor itself, and what runs beside it, need.
    pub(super) fn overhead(&self) -> u64 {
        let monitor = self.monitor.overhead(&self.machine, &self.host).as_bytes();
        monitor.saturating_add(disk::helpers_memory(&self.machine))
    }

    /// What runs the guest.
    pub(super) fn monitor(&self) -> Monitor {
        self.monitor
    }

    /// Bytes that the guest is booted with.
    pub(super) fn guest_memory(&self) -> u64 {
        self.machine.memory.as_bytes()
    }

    /// Whether the guest gets a network if its namespace has one.
    pub(super) fn wants_network(&self) -> bool {
        // Solo5 guests say which devices they have; a surplus one would be an error.
        let declares =
            self.solo5_devices().is_none_or(|mut all| all.any(|device| device.kind == DeviceKind::Net));
        self.network != NetworkAccess::None && declares
    }

    fn solo5_devices(&self) -> Option<impl Iterator<Item = &solo5::Device>> {
        Some(
            self.machine
                .kernel
                .image
                .format
                .elf()?
                .solo5
                .as_ref()
                .filter(|_| self.is_solo5())?
                .devices
                .iter(),
        )
    }

    fn is_solo5(&self) -> bool {
        matches!(self.monitor, Monitor::Solo5Hvt | Monitor::Solo5Spt)
    }

    /// How the guest is connected.
    pub(super) fn network_mode(&self) -> Mode {
        match self.network {
            NetworkAccess::Static => Mode::Static,
            NetworkAccess::Dynamic | NetworkAccess::None => Mode::Dynamic,
        }
    }

    /// How the monitor gets the TAP device.
    pub(super) fn tap_handover(&self) -> Handover {
        match self.monitor.capabilities(self.host.arch).tap {
            TapHandover::Descriptor => Handover::Descriptor,
            TapHandover::Name => Handover::Name { uid: self.uid },
        }
    }

    /// The name under which the guest's manifest declares its network device, if the image says so.
    pub(super) fn declared_net(&self) -> Option<&str> {
        self.solo5_net.as_deref()
    }

    /// The container's name servers, as its engine has written them by now. A guest starts without those that it cannot
    /// be told.
    pub(super) fn name_servers(&self) -> Vec<IpAddr> {
        let Some(path) = &self.resolv_conf else { return Vec::new() };
        let text = std::fs::read(path).unwrap_or_else(|error| {
            log::warn!("the guest gets no name servers: cannot read {}: {error}", path.display());
            Vec::new()
        });
        let text = String::from_utf8_lossy(&text);
        let (servers, unusable) = network::parse_resolv_conf(&text);
        for word in unusable {
            log::warn!(
                "the guest does not get the name server {word:?} of {}: it is no address",
                path.display()
            );
        }
        servers
    }

    /// Completes the machine with what start found.
    pub(super) fn add_network(&mut self, device: NetDevice, network: Network) {
        self.machine.nets.push(device);
        self.workload.networks.push(network);
    }

    /// The machine with what the guest's framework makes of it.
    pub(super) fn booted(&self) -> Result<Machine, PlanError> {
        let mut machine = self.machine.clone();
        machine.boot = self.workload.boot(&machine, self.monitor, self.host.arch)?;
        Ok(machine)
    }

    /// The initrd with the container's files in it, and the number that the monitor inherits it as, if there is one.
    pub(super) fn compose_initrd(&self, rootfs: &Path) -> Result<Option<(i32, OwnedFd)>, StartError> {
        let owner = Owner { uid: self.uid, gid: self.gid };
        Ok(disk::compose(&self.disk, &self.booted()?, self.workload.guest, rootfs, owner)?)
    }

    /// How to execute the monitor.
    pub(super) fn launch(&self) -> Result<Launch, PlanError> {
        let mut machine = self.booted()?;
        // `compose_initrd` puts it there.
        machine.boot.config.take_if(|config| matches!(config.place, ConfigPlace::InitrdFile(_)));
        let plan = self.monitor.plan(&machine, &self.host);
        plan.map_err(|source| PlanError::Machine { path: self.kernel.clone(), source })
    }
}

impl Frozen {
    /// Plans the launch as far as it can be known before the network: what will be wrong then is wrong now.
    fn rehearse(&self) -> Result<Launch, PlanError> {
        let mut complete = self.clone();
        if self.wants_network() && self.is_solo5() {
            // The manifest wants a device; which one it will be is known at start.
            let attachment = Attachment::Name("tap".parse()?);
            let mac = MacAddr::new([2, 0, 0, 0, 0, 1])?;
            let declared_as = self.solo5_net.clone();
            let device = NetDevice { mac, mtu: 1500, attachment, declared_as, backend: NetBackend::Monitor };
            complete.add_network(device, Network::default());
        }
        complete.launch()
    }
}

/// An open file of the image, under the name by which the root's plan refers to it.
#[derive(Debug)]
pub(super) struct BootSource {
    pub(super) name: &'static str,
    pub(super) file: File,
}

/// Everything that create decides.
#[derive(Debug)]
pub(super) struct ContainerPlan {
    pub(super) frozen: Frozen,
    pub(super) root: MonitorRoot,
    pub(super) boot: Vec<BootSource>,
    pub(super) disk: DiskPlan,
    pub(super) filters: Option<Filters>,
    pub(super) warnings: Vec<Warning>,
    /// What does not reach the guest.
    pub(super) omitted: Vec<Omission>,
}

/// Looks at the image and the host, and decides.
///
/// # Errors
/// [`PlanError`]; nothing has been changed then, nor otherwise.
pub(super) fn plan(
    bundle: &Bundle,
    guest: &GuestConfig,
    image: &Image,
    config: &Config,
    mounts: &MountTable,
) -> Result<ContainerPlan, PlanError> {
    let settings = config.monitor(guest.monitor);
    let host = host(guest.monitor, &settings)?;
    let named = |source| PlanError::File { key: BINARY, source };
    let kernel = image.open_file(guest.binary.as_str()).map_err(named)?.into_file();
    let inspected = kernel::inspect(&kernel)
        .map_err(|source| PlanError::NotKernel { path: guest.binary.clone(), source })?;
    let mut disk = disk::plan(bundle, guest, image, config, host.arch, mounts)?;
    let mut machine = machine(&bundle.spec, inspected, config, &settings);
    let mut workload = workload(&bundle.spec, guest);
    disk.equip(&mut machine, &mut workload);
    let mut frozen = Frozen {
        monitor: guest.monitor,
        machine,
        workload,
        disk: disk.frozen.clone(),
        host,
        kernel: guest.binary.as_str().into(),
        network: network_access(&bundle.spec, config)?,
        backend: backend(guest.monitor, &settings)?,
        resolv_conf: resolv_conf(&bundle.spec),
        solo5_net: guest.solo5_net.clone(),
        uid: bundle.spec.host_user.uid,
        gid: bundle.spec.host_user.gid,
        shutdown: Shutdown::Kill,
        hooks: bundle.spec.hooks.clone(),
        control: None,
    };
    let booted = frozen.booted()?;
    disk.settle_initrd(&mut frozen.machine, booted.boot.config.as_ref());
    let launch = frozen.rehearse()?;
    frozen.shutdown = launch.shutdown;
    frozen.control = launch.control;
    let mut needs = needs(&frozen, &booted)?;
    needs.label.clone_from(&bundle.spec.labels.mount);
    disk.furnish(&mut needs, &frozen.machine, &kernel, &bundle.spec.host_user)?;
    let profile = bundle.spec.seccomp.as_ref().filter(|_| config.runtime.seccomp == config::Seccomp::Spec);
    let layout = HostLayout::probe().map_err(|source| PlanError::Probe { path: "/".into(), source })?;
    let unapplied =
        |field| format!("{field} of the specification is not applied: a monitor has no use for it");
    disk.warnings.extend(bundle.spec.unapplied.iter().map(unapplied));
    Ok(ContainerPlan {
        root: root::plan(&needs, &layout)?,
        frozen,
        disk,
        filters: profile.map(Filters::compile).transpose()?,
        boot: vec![BootSource { name: "kernel", file: kernel }],
        warnings: launch.warnings,
        omitted: booted.boot.omitted,
    })
}

fn machine(spec: &ContainerSpec, image: KernelImage, config: &Config, settings: &MonitorConfig) -> Machine {
    let memory =
        spec.memory_limit.map_or(Memory::mib(settings.default_memory_mb.get().into()), Memory::bytes);
    let mut machine = Machine::new(Kernel { path: KERNEL.into(), image }, memory);
    machine.vcpus = settings.default_vcpus;
    machine.kvm = config.runtime.kvm;
    machine.seccomp = if spec.seccomp.is_some() { Seccomp::On } else { Seccomp::Off };
    machine
}

fn network_access(spec: &ContainerSpec, config: &Config) -> Result<NetworkAccess, PlanError> {
    if !spec.namespaces.has(NamespaceKind::Network) {
        return match config.runtime.host_network {
            HostNetwork::Refuse => Err(PlanError::HostNetwork),
            HostNetwork::None => Ok(NetworkAccess::None),
        };
    }
    let name = spec.annotations.get(knative::CONTAINER_NAME).map(String::as_str);
    Ok(if name == Some(knative::USER_CONTAINER) { NetworkAccess::Static } else { NetworkAccess::Dynamic })
}

/// QEMU's packets are moved by the host's kernel if the administrator wants it.
fn backend(monitor: Monitor, settings: &MonitorConfig) -> Result<NetBackend, PlanError> {
    if monitor != Monitor::Qemu || !settings.vhost {
        return Ok(NetBackend::Monitor);
    }
    match rustix::fs::stat(VHOST_NET) {
        Ok(_) => Ok(NetBackend::Vhost),
        Err(errno) => Err(PlanError::Vhost { source: errno.into() }),
    }
}

fn resolv_conf(spec: &ContainerSpec) -> Option<PathBuf> {
    let mounts = spec.mounts.iter().rev().filter(|mount| mount.is_bind());
    mounts.into_iter().find(|mount| mount.destination == Path::new("/etc/resolv.conf"))?.source.clone()
}

/// Whether this is what engines set to tell a process that it is in a container (systemd.io/CONTAINER_INTERFACE). A guest is a machine; its systemd would
/// leave out half of the boot, and Linux could not even be given the variable.
fn marks_container(variable: &str) -> bool {
    variable.starts_with("container=")
}

fn workload(spec: &ContainerSpec, guest: &GuestConfig) -> Workload {
    let mut workload = Workload::new(guest.guest, spec.args.clone());
    workload.version.clone_from(&guest.version);
    workload.env = spec.env.iter().filter(|variable| !marks_container(variable)).cloned().collect();
    workload.uid = spec.user.uid;
    workload.gid = spec.user.gid;
    workload.cwd = spec.cwd.display().to_string();
    workload.hostname = spec.hostname.clone().unwrap_or_default();
    workload
}

/// The host, as far as this monitor's plan depends on it.
fn host(monitor: Monitor, settings: &MonitorConfig) -> Result<Host, PlanError> {
    let arch: Arch = std::env::consts::ARCH.parse()?;
    let program = find_monitor(monitor, arch, settings)?;
    let data_dir = Some(settings.data_path.clone()).filter(|path| !path.as_os_str().is_empty());
    let kvm = match monitor.capabilities(arch).kvm {
        KvmNeed::Unused => KvmAccess::Unusable { reason: format!("{monitor} makes no use of KVM") },
        KvmNeed::Optional | KvmNeed::Required => probe::kvm(),
    };
    Ok(Host { arch, kvm, program, data_dir })
}

/// Finds a monitor's program: the configured one, or the first of its names in `PATH`.
///
/// # Errors
/// [`PlanError::NoProgram`] or [`PlanError::ConfiguredProgram`]
pub fn find_monitor(monitor: Monitor, arch: Arch, settings: &MonitorConfig) -> Result<PathBuf, PlanError> {
    let program = if settings.path.as_os_str().is_empty() {
        let names = monitor.binary_names(arch);
        let path = std::env::var_os("PATH").unwrap_or_default();
        let found = names.iter().find_map(|name| probe::find_program(name, &path));
        found.ok_or(PlanError::NoProgram { monitor, program: names.first().copied().unwrap_or_default() })
    } else {
        let path = settings.path.clone();
        match check_program(&path) {
            Ok(()) => Ok(path),
            Err(source) => Err(PlanError::ConfiguredProgram { monitor, path, source }),
        }
    }?;
    // With links resolved, it is the same program inside the monitor's root.
    procfs::real_path(&program).map_err(|source| PlanError::Probe { path: program, source })
}

/// Whether the program at `path` can be executed wherever we are called from.
fn check_program(path: &Path) -> io::Result<()> {
    if path.is_relative() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the path is not absolute"));
    }
    if !path.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    Ok(rustix::fs::access(path, rustix::fs::Access::EXEC_OK)?)
}

/// What create would do with a bundle.
#[derive(Clone, Debug)]
pub struct Rehearsal {
    /// The kind of guest.
    pub guest: Guest,
    /// The monitor.
    pub monitor: Monitor,
    /// The monitor's command line, as far as it is known before the network.
    pub command: String,
    /// Which root file system the guest gets, and why not each other: a line each.
    pub rootfs: Vec<String>,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// Plans a bundle without doing anything with it.
///
/// # Errors
/// What create would fail with before it touches anything.
pub fn rehearse(bundle: &Path, driver: CgroupDriver, config: &Config) -> Result<Rehearsal, LifecycleError> {
    let opened = super::create::open_bundle(bundle)?;
    let directory = super::default_root().join("check");
    let Decision { bundle, guest, plan, .. } = super::create::decide(opened, driver, &directory, config)?;
    crate::sandbox::spawn::check(&bundle.spec.namespaces)?;
    let launch = plan.frozen.rehearse()?;
    let words = std::iter::once(launch.program.display().to_string()).chain(launch.args);
    Ok(Rehearsal {
        guest: guest.guest,
        monitor: guest.monitor,
        command: words.collect::<Vec<_>>().join(" "),
        rootfs: plan.disk.choice,
        warnings: plan.warnings.iter().map(ToString::to_string).chain(plan.disk.warnings).collect(),
    })
}

fn needs(frozen: &Frozen, booted: &Machine) -> Result<Needs, PlanError> {
    let program = &frozen.host.program;
    let files = frozen.monitor.host_files(booted, &frozen.host);
    if let Some(Firmware { name, places }) = &files.firmware
        && !places.iter().any(|place| place.join(name).exists())
    {
        let looked = places.iter().map(|place| place.display().to_string()).collect::<Vec<_>>().join(", ");
        return Err(PlanError::Firmware { name: name.clone(), looked });
    }
    let mut binds = Vec::new();
    for directory in files.data.iter().filter(|directory| directory.exists()) {
        let target = Target::new(directory)?;
        binds.push(HostBind { source: Source::Host(directory.clone()), target, access: Use::Data });
    }
    let nodes = frozen
        .monitor
        .device_nodes(&frozen.machine, &frozen.host)
        .map_err(|source| PlanError::Machine { path: frozen.kernel.clone(), source })?;
    let devices = nodes.iter().map(|node| device_node(node.path())).collect::<Result<_, _>>()?;
    Ok(Needs {
        binary: program.clone(),
        libraries: probe::libraries_of(program)
            .map_err(|source| PlanError::Probe { path: program.clone(), source })?,
        binds,
        boot_files: vec![BootFile {
            handle: "kernel".to_owned(),
            target: Target::new(KERNEL)?,
            delivery: Delivery::Bind, // decided by `furnish`
        }],
        devices,
        scratch: files
            .socket_dir
            .iter()
            .map(|path| Ok(Scratch { target: Target::new(path)?, size: SOCKET_ROOM }))
            .collect::<Result<_, PlanError>>()?,
        proc: if files.proc { Proc::Masked } else { Proc::Absent },
        owner: Owner { uid: frozen.uid, gid: frozen.gid },
        label: None,
    })
}

/// The node that the monitor gets is the host's device under the same path.
fn device_node(path: &Path) -> Result<DeviceNode, PlanError> {
    let found = rustix::fs::stat(path)
        .map_err(|errno| PlanError::Probe { path: path.to_owned(), source: errno.into() })?;
    let (major, minor) = (rustix::fs::major(found.st_rdev), rustix::fs::minor(found.st_rdev));
    Ok(DeviceNode {
        target: Target::new(path)?,
        device: Device { kind: root::DeviceKind::Char, major, minor },
        access: Access::ReadWrite,
    })
}
