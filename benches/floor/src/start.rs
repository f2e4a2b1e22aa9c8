//! The way in: from the kernel's initial stack to a program's `main`.

use core::ffi::{CStr, c_char};

// The initial stack is argc, argv…, 0, environment…, 0 (System V ABI for x86-64, section 3.4.1).
core::arch::global_asm!(
    ".globl _start",
    "_start:",
    "xor ebp, ebp",
    "mov rdi, rsp",
    "and rsp, -16",
    "call floor_main",
    "ud2",
    ".text",
);

/// What a program was started with. The pointers are the kernel's and end with a null pointer each.
#[derive(Clone, Copy, Debug)]
pub struct Start {
    argc: usize,
    argv: *const *const c_char,
}

impl Start {
    /// Reads the initial stack.
    ///
    /// # Safety
    /// `stack` is the stack pointer with which the kernel entered `_start`.
    #[must_use]
    pub unsafe fn new(stack: *const usize) -> Self {
        // SAFETY: the first word is argc.
        let argc = unsafe { stack.read() };
        Self { argc, argv: stack.wrapping_add(1).cast() }
    }

    /// Argument number `index`, 0 being the program.
    #[must_use]
    pub fn arg(&self, index: usize) -> Option<&'static CStr> {
        if index >= self.argc {
            return None;
        }
        // SAFETY: index is below argc.
        let text = unsafe { self.argv.wrapping_add(index).read() };
        // SAFETY: the kernel terminates each argument, and they live as long as the process.
        Some(unsafe { CStr::from_ptr(text) })
    }

    /// The last argument.
    #[must_use]
    pub fn last(&self) -> Option<&'static CStr> {
        self.arg(self.argc.checked_sub(1)?)
    }

    /// The arguments from number `index` on, as execve(2) takes them.
    #[must_use]
    pub fn args_from(&self, index: usize) -> *const *const c_char {
        self.argv.wrapping_add(index.min(self.argc))
    }

    /// The environment, as execve(2) takes it.
    #[must_use]
    pub fn environment(&self) -> *const *const c_char {
        self.argv.wrapping_add(self.argc + 1)
    }
}

/// Makes `main(Start) -> i32` the program.
#[macro_export]
macro_rules! program {
    ($main:path) => {
        #[unsafe(no_mangle)]
        extern "C" fn floor_main(stack: *const usize) -> ! {
            // SAFETY: called by `_start` alone, with the initial stack pointer.
            let start = unsafe { $crate::start::Start::new(stack) };
            $crate::sys::exit($main(start))
        }
    };
}
