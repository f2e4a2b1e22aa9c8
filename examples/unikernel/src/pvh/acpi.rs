//! The few words of the ACPI tables that a guest needs to power off and to see the power button.
//!
//! Layouts: ACPI specification 6.5, sections 5.2.5 (RSDP), 5.2.7 (RSDT), 5.2.8 (XSDT), 5.2.9 (FADT), 4.8 (registers).
//! The DSDT is a program in a byte code, which is not run here but searched for the names of interest.

use crate::memory::value_at;
use crate::port::{in16, out8, out16};

use super::entry::MAPPED;

/// What the tables say; registers that are not there are 0.
pub(super) struct Acpi {
    /// Where they begin, or 0.
    root: u64,
    /// Ports of the event and control registers of machines with ACPI hardware.
    events: u16,
    control: u16,
    /// The register to power off machines without.
    sleep_control: Register,
    dsdt: u64,
}

/// A register in memory or among the ports.
#[derive(Clone, Copy)]
pub(super) enum Register {
    Memory(u64),
    Port(u16),
    Absent,
}

impl Register {
    fn write(self, value: u8) -> Outcome {
        match self {
            // SAFETY: the tables say that a device is there.
            Self::Memory(address) => unsafe { (address as *mut u8).write_volatile(value) },
            Self::Port(port) => out8(port, value),
            Self::Absent => return Outcome::NotPossible,
        }
        Outcome::Requested
    }
}

/// What became of the wish to power off.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The machine was told, and ends as soon as the monitor gets to it.
    Requested,
    /// The tables do not say how.
    NotPossible,
}

/// The beginning of the area of memory where the root of the tables may be (section 5.2.5.1).
const SEARCHED_FIRST: u64 = 0xe_0000;

/// The bit of the event registers that stands for the power button.
const POWER_BUTTON: u16 = 1 << 8;

impl Acpi {
    /// Reads the tables, if there are any.
    pub(super) fn find(root: u64) -> Self {
        let root = match root {
            // Firecracker does not say where they begin. They do where the specification has a search for them begin.
            0 if get::<u64>(SEARCHED_FIRST) == u64::from_le_bytes(*b"RSD PTR ") => SEARCHED_FIRST,
            root if root < MAPPED => root,
            _ => 0,
        };
        let fadt = if root == 0 { 0 } else { find_table(root, u32::from_le_bytes(*b"FACP")) };
        if fadt == 0 {
            return Self { root, events: 0, control: 0, sleep_control: Register::Absent, dsdt: 0 };
        }
        let length: u32 = get(fadt + 4);
        let extended: u64 = if length >= 148 { get(fadt + 140) } else { 0 };
        let dsdt = if extended == 0 { u64::from(get::<u32>(fadt + 40)) } else { extended };
        let reduced_hardware = get::<u32>(fadt + 112) & 1 << 20 != 0;
        if !reduced_hardware {
            let events = port(u64::from(get::<u32>(fadt + 56)));
            let control = port(u64::from(get::<u32>(fadt + 64)));
            return Self { root, events, control, sleep_control: Register::Absent, dsdt };
        }
        let address: u64 = if length >= 256 { get(fadt + 248) } else { 0 };
        let sleep_control = match get::<u8>(fadt + 244) {
            _ if address == 0 => Register::Absent,
            0 if address < MAPPED => Register::Memory(address),
            1 => Register::Port(port(address)),
            _ => Register::Absent,
        };
        Self { root, events: 0, control: 0, sleep_control, dsdt }
    }

    /// Whether the tables are signed with that name.
    pub(super) fn made_by(&self, name: &[u8; 6]) -> bool {
        self.root != 0 && (0..).zip(name).all(|(at, letter)| get::<u8>(self.root + 9 + at) == *letter)
    }

    /// Powers the machine off, if the tables say how.
    pub(super) fn power_off(&self) -> Outcome {
        // The byte code names the sleep state "S5" by a package: a length, a count, then a small number.
        let Some(at) = self.search(*b"_S5_") else { return Outcome::NotPossible };
        let state: u8 = match get::<u8>(at + 7) {
            0x0a => get(at + 8), // a byte follows
            small => small,      // 0 and 1 have codes of their own
        };
        if self.control != 0 {
            out16(self.control, u16::from(state & 7) << 10 | 1 << 13);
            return Outcome::Requested;
        }
        self.sleep_control.write((state & 7) << 2 | 1 << 5)
    }

    /// The power button of ACPI hardware, if the machine has any.
    pub(super) fn power_button(&self) -> Option<PowerButton> {
        if self.events == 0 {
            return None;
        }
        // The button shows only where its interrupt is enabled, even if nobody takes interrupts.
        out16(self.events + 2, POWER_BUTTON);
        Some(PowerButton { events: self.events })
    }

    /// The address in memory of an operation region that the byte code declares under this name.
    pub(super) fn region(&self, name: [u8; 4]) -> Option<u64> {
        let at = self.search(name)?;
        // "System memory", then a number in one of three widths.
        let (space, width): (u8, u8) = (get(at + 4), get(at + 5));
        let address = match width {
            0x0b => u64::from(get::<u16>(at + 6)),
            0x0c => u64::from(get::<u32>(at + 6)),
            0x0e => get::<u64>(at + 6),
            _ => return None,
        };
        if space == 0 { Some(address) } else { None }
    }

    /// The first place in the byte code where a name is.
    fn search(&self, name: [u8; 4]) -> Option<u64> {
        if self.dsdt == 0 || self.dsdt >= MAPPED {
            return None;
        }
        let name = u32::from_le_bytes(name);
        let end = self.dsdt + u64::from(get::<u32>(self.dsdt + 4));
        (self.dsdt + 36..end.saturating_sub(3)).find(|at| get::<u32>(*at) == name)
    }
}

/// The power button of ACPI hardware.
pub(super) struct PowerButton {
    events: u16,
}

impl PowerButton {
    /// Whether it was pressed since the last time.
    pub(super) fn pressed(&self) -> bool {
        let pressed = in16(self.events) & POWER_BUTTON != 0;
        if pressed {
            out16(self.events, POWER_BUTTON);
        }
        pressed
    }
}

/// The address of the table with that signature, or 0.
fn find_table(root: u64, signature: u32) -> u64 {
    let wide: u64 = if get::<u8>(root + 15) >= 2 { get(root + 24) } else { 0 };
    let (list, step) = if wide != 0 { (wide, 8) } else { (u64::from(get::<u32>(root + 16)), 4) };
    if list == 0 || list >= MAPPED {
        return 0;
    }
    let end = list + u64::from(get::<u32>(list + 4));
    let mut at = list + 36;
    while at + step <= end {
        let table = if step == 8 { get::<u64>(at) } else { u64::from(get::<u32>(at)) };
        if table != 0 && table < MAPPED && get::<u32>(table) == signature {
            return table;
        }
        at += step;
    }
    0
}

fn get<T: Copy>(address: u64) -> T {
    // SAFETY: only numbers are read, from tables that lie in mapped memory; where they say otherwise, a device or
    // nothing answers, and the number is wrong.
    unsafe { value_at(address) }
}

fn port(address: u64) -> u16 {
    u16::try_from(address).unwrap_or(0)
}
