//! How the monitors tell a guest that it should stop. None needs an interrupt: they are looked at between sleeps.

use core::cell::Cell;

use crate::platform::StopRequest;
use crate::port::{NOBODY, in8};

use super::acpi::{Acpi, PowerButton};
use super::entry::map_device;

/// The places where a request to stop can show.
pub(super) struct StopSources {
    /// Of machines with ACPI hardware: QEMU's pc and q35.
    power_button: Option<PowerButton>,
    /// Of machines without.
    events: Option<Events>,
    keyboard: Option<Keyboard>,
}

impl StopSources {
    /// Looks which of them this machine has.
    pub(super) fn find(acpi: &Acpi) -> Self {
        let power_button = acpi.power_button();
        let events = if power_button.is_none() { Events::find(acpi) } else { None };
        Self { power_button, events, keyboard: Keyboard::find() }
    }

    /// Whether there was a request since the last time.
    pub(super) fn ask(&self) -> Option<StopRequest> {
        if self.power_button.as_ref().is_some_and(PowerButton::pressed)
            || self.events.as_ref().is_some_and(Events::power_button_pressed)
        {
            return Some(StopRequest::PowerButton);
        }
        if self.keyboard.as_ref().is_some_and(Keyboard::ctrl_alt_del) {
            return Some(StopRequest::CtrlAltDel);
        }
        None
    }
}

/// A register that says what has happened, and forgets it when it is read. Neither its address nor its meaning is
/// fixed; the byte code of the tables has both. The address is looked up there, by the names that the monitors use.
enum Events {
    /// QEMU's microvm: hw/acpi/generic_event_device.c.
    Qemu(*const u32),
    /// Cloud Hypervisor: devices/src/acpi.rs.
    CloudHypervisor(*const u8),
}

impl Events {
    fn find(acpi: &Acpi) -> Option<Self> {
        if acpi.made_by(b"CLOUDH") {
            return acpi
                .region(*b"GDST")
                .map(|address| Self::CloudHypervisor(map_device(address) as *const u8));
        }
        acpi.region(*b"EREG").map(|address| Self::Qemu(map_device(address) as *const u32))
    }

    fn power_button_pressed(&self) -> bool {
        match self {
            // SAFETY: mapped, and the tables say that the device is there.
            Self::Qemu(register) => unsafe { register.read_volatile() & 2 != 0 },
            // SAFETY: as above.
            Self::CloudHypervisor(register) => unsafe { register.read_volatile() & 8 != 0 },
        }
    }
}

const KEYBOARD_DATA: u16 = 0x60;
const KEYBOARD_STATUS: u16 = 0x64;
/// Keyboard status: a byte is waiting.
const WAITING: u8 = 1;
/// What the keyboard sends when ctrl, alt and delete are pressed, as Firecracker has it (src/vmm/src/devices/legacy/
/// i8042.rs), and as QEMU has it, which translates to the codes of the first PC.
const CTRL_ALT_DEL: [u32; 2] = [0x1411_e071, 0x1d38_e053];

/// The keyboard, of which only the last four bytes matter.
struct Keyboard {
    seen: Cell<u32>,
}

impl Keyboard {
    fn find() -> Option<Self> {
        if in8(KEYBOARD_STATUS) == NOBODY { None } else { Some(Self { seen: Cell::new(0) }) }
    }

    fn ctrl_alt_del(&self) -> bool {
        // Bounded, in case that something else is at this port.
        for _ in 0..16 {
            if in8(KEYBOARD_STATUS) & WAITING == 0 {
                break;
            }
            let seen = self.seen.get() << 8 | u32::from(in8(KEYBOARD_DATA));
            self.seen.set(seen);
            if CTRL_ALT_DEL.contains(&seen) {
                return true;
            }
        }
        false
    }
}
