//! Any bytes as a kernel file, and every monitor's opinion of what was found in them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use urunc_vmm::{Arch, Monitor, kernel};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(image) = kernel::inspect(std::io::Cursor::new(bytes)) {
        for monitor in Monitor::ALL {
            let _ = monitor.accepts(&image, Arch::X86_64);
        }
    }
});
