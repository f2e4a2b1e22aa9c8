//! Booted by PVH: QEMU, Firecracker or Cloud Hypervisor, and the bare machine that they emulate.
//!
//! - [`entry`]: from 32-bit mode to Rust; [`info`]: what the loader says about memory and command line
//! - [`serial`]: the console; [`timer`]: sleep and time; [`acpi`]: tables and power; [`stop`]: requests to stop

mod acpi;
mod entry;
mod info;
mod serial;
mod stop;
mod timer;

use crate::platform::{Input, Platform, StopRequest};
use crate::port::{NOBODY, in8, out8, out16};
use crate::program;

use self::acpi::{Acpi, Outcome};
use self::info::StartInfo;
use self::stop::StopSources;
use self::timer::Timer;

/// QEMU's `isa-debug-exit` at its default port: QEMU ends with status `(value << 1) | 1`.
const DEBUG_EXIT: u16 = 0x501;
/// Command port of the keyboard controller, and its command to reset the machine.
const KEYBOARD_COMMAND: u16 = 0x64;
const RESET: u8 = 0xfe;

/// Rust starts here, on a stack of its own, in 64-bit mode.
extern "C" fn main(info: &'static StartInfo) -> ! {
    let acpi = Acpi::find(info.acpi());
    let monitor = Monitor::find(&acpi);
    let timer = Timer::start();
    let stops = StopSources::find(&acpi);
    program::run(&Pvh { info, monitor, acpi: &acpi, timer: &timer, stops: &stops }, info.command_line())
}

struct Pvh<'m> {
    info: &'static StartInfo,
    monitor: Monitor,
    acpi: &'m Acpi,
    timer: &'m Timer,
    stops: &'m StopSources,
}

/// Who emulates the machine, as far as a guest can tell.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Monitor {
    Qemu,
    Firecracker,
    CloudHypervisor,
    Unknown,
}

impl Monitor {
    fn find(acpi: &Acpi) -> Self {
        // Both sign their tables. QEMU's tables look the same with any of its firmwares, and may be missing.
        if acpi.made_by(b"FIRECK") {
            return Self::Firecracker;
        }
        if acpi.made_by(b"CLOUDH") {
            return Self::CloudHypervisor;
        }
        // QEMU's firmware configuration device (docs/specs/fw_cfg.rst): item 0 is its signature.
        out16(0x510, 0);
        for letter in *b"QEMU" {
            if in8(0x511) != letter {
                return Self::Unknown;
            }
        }
        Self::Qemu
    }
}

impl Platform for Pvh<'_> {
    fn booted_by(&self) -> &'static str {
        match self.monitor {
            Monitor::Qemu => "PVH under QEMU",
            Monitor::Firecracker => "PVH under Firecracker",
            Monitor::CloudHypervisor => "PVH under Cloud Hypervisor",
            Monitor::Unknown => "PVH under an unknown monitor",
        }
    }

    fn memory(&self) -> u64 {
        self.info.memory()
    }

    fn write(&self, text: &[u8]) {
        serial::write(text);
    }

    fn read(&self) -> Option<u8> {
        serial::read()
    }

    fn input(&self) -> Input {
        Input::Present
    }

    fn sleep(&self) {
        self.timer.sleep();
    }

    fn stop_requested(&self) -> Option<StopRequest> {
        self.stops.ask()
    }

    fn start_clock(&self) {
        self.timer.start_clock();
    }

    fn elapsed(&self) -> u64 {
        self.timer.elapsed()
    }

    fn power_off(&self, status: u8) -> ! {
        // Monitors act on another thread, and must not find a reset that was meant for the case that they do not act.
        let wait = || (0..2 * timer::SLEEPS_PER_SECOND).for_each(|_| self.timer.sleep());

        // Only QEMU has a device for a status, and that device can't say success.
        if status != 0 && self.monitor == Monitor::Qemu && in8(DEBUG_EXIT) != NOBODY {
            out8(DEBUG_EXIT, status);
            wait();
        }
        if self.acpi.power_off() == Outcome::Requested {
            wait();
        }
        // Firecracker knows nothing else, and takes a reset for the end. Cloud Hypervisor would start again.
        if in8(KEYBOARD_COMMAND) != NOBODY && self.monitor != Monitor::CloudHypervisor {
            out8(KEYBOARD_COMMAND, RESET);
            wait();
        }
        // A machine with none of these. With -no-reboot, this ends QEMU.
        entry::triple_fault()
    }
}
