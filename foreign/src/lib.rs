//! Calls foreign code in any language: native hooks, libraries with drivers, server modules.
#![expect(unsafe_code, reason = "calls C, which stops what that code throws")]

use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// A library threw an exception or panicked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thrown;

#[cfg(unix)]
unsafe extern "C-unwind" {
    /// guard.c: returns 1 if `run` threw an exception.
    fn snaphook_guard(run: extern "C-unwind" fn(*mut c_void), data: *mut c_void) -> i32;
}

/// Runs foreign code and catches its exceptions, whichever language threw them.
pub fn guarded(mut run: &mut dyn FnMut()) -> Result<(), Thrown> {
    extern "C-unwind" fn enter(data: *mut c_void) {
        // SAFETY: `guarded` passes its own `run`, which outlives the call.
        let run = unsafe { &mut *data.cast::<&mut dyn FnMut()>() };
        run();
    }
    let data: *mut c_void = (&raw mut run).cast();
    // The unwinder only starts if an outer frame catches the exception.
    let caught = catch_unwind(AssertUnwindSafe(|| {
        #[cfg(unix)]
        // SAFETY: `enter` gets the pointer that it expects; nothing between it and the guard needs to be dropped.
        return unsafe { snaphook_guard(enter, data) } == 0;
        #[cfg(not(unix))]
        {
            enter(data);
            true
        }
    }));
    match caught {
        Ok(true) => Ok(()),
        _ => Err(Thrown),
    }
}

/// Whether an address from a library may contain code: calling data would crash the process. If the system cannot tell,
/// returns `true`.
pub fn may_be_code(address: usize) -> bool {
    let Ok(maps) = std::fs::read_to_string("/proc/self/maps") else { return true };
    maps.lines().any(|line| {
        let mut fields = line.split_ascii_whitespace();
        let range = fields.next().and_then(|range| range.split_once('-'));
        let number = |text| usize::from_str_radix(text, 16).unwrap_or(0);
        range.is_some_and(|(start, end)| (number(start)..number(end)).contains(&address))
            && fields.next().is_some_and(|access| access.contains('x'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_thrown_ends_here() {
        let mut ran = false;
        assert_eq!(guarded(&mut || ran = true), Ok(()));
        assert!(ran);
        assert_eq!(guarded(&mut || panic!("thrown")), Err(Thrown));
        assert_eq!(guarded(&mut || ()), Ok(()), "after one that threw");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn code_is_told_from_data() {
        static DATA: [u8; 4] = [1, 2, 3, 4];
        assert!(may_be_code(may_be_code as *const () as usize));
        for data in [DATA.as_ptr() as usize, Box::new(7).as_ref() as *const i32 as usize, 0, usize::MAX] {
            assert!(!may_be_code(data), "{data:x}");
        }
    }
}
