//! What a boot path offers the program: a console, a clock, sleep, and an end.

/// Who asked the guest to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopRequest {
    /// The ACPI power button: QEMU's `system_powerdown`, Cloud Hypervisor's `power-button`.
    PowerButton,
    /// Ctrl, alt and delete on the keyboard: Firecracker's `SendCtrlAltDel`.
    CtrlAltDel,
}

/// The machine as the program sees it. Everything takes `&self`: there is one processor and no interrupt handler that
/// touches anything.
pub trait Platform {
    /// How the guest was booted, for the greeting.
    fn booted_by(&self) -> &'static str;

    /// The memory in bytes that the monitor gave, as far as it says.
    fn memory(&self) -> u64;

    /// Writes to the console.
    fn write(&self, text: &[u8]);

    /// A byte from the console, if one is there.
    fn read(&self) -> Option<u8>;

    /// Whether the console can be read at all.
    fn input(&self) -> Input;

    /// Sleeps for a moment; longer only where nothing can happen that the guest could notice.
    fn sleep(&self);

    /// Whether the monitor has asked the guest to stop since the last time. Some monitors can't.
    fn stop_requested(&self) -> Option<StopRequest> {
        None
    }

    /// Starts counting for [`Platform::elapsed`].
    fn start_clock(&self);

    /// Nanoseconds since the clock was started; to be asked at least once in four seconds.
    fn elapsed(&self) -> u64;

    /// Describes the devices that the monitor attached by name, if this is how it does it.
    fn describe_devices(&self) {}

    /// The MAC address of the network device that `receive` and `send` use, if there is one.
    fn network(&self) -> Option<[u8; 6]> {
        None
    }

    /// Takes a frame from the network, if one is there: it then fills the beginning of the room, up to the length.
    fn receive(&self, _room: &mut [u8]) -> Option<usize> {
        None
    }

    /// Puts a frame on the network.
    fn send(&self, _frame: &[u8]) {}

    /// Ends the machine, with the status where the monitor can carry one.
    fn power_off(&self, status: u8) -> !;
}

/// Whether a console can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// Bytes typed at the monitor arrive.
    Present,
    /// The console is for output only.
    Absent,
}
