//! Panics that are part of a seed: those that handlers make on purpose, which the library catches,
//! and those that nobody foresaw.

use std::cell::{Cell, RefCell};
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

thread_local! {
    /// Whether this thread runs a seed.
    static IS_QUIET: Cell<bool> = const { Cell::new(false) };
    /// What the last panic said, and where it was.
    static LAST: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Runs `run`. A panic on this thread prints nothing, and one that comes through is returned in its
/// own words.
pub(crate) fn quietly(run: impl FnOnce()) -> Result<(), String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let print = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if IS_QUIET.get() {
                LAST.set(info.to_string());
            } else {
                print(info);
            }
        }));
    });
    IS_QUIET.set(true);
    let result = panic::catch_unwind(AssertUnwindSafe(run));
    IS_QUIET.set(false);
    result.map_err(|_| LAST.take())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_told_with_its_place() {
        assert_eq!(quietly(|| {}), Ok(()));
        let told = quietly(|| panic!("by accident")).unwrap_err();
        assert!(told.contains("by accident") && told.contains("panics.rs"), "{told}");
        let caught = quietly(|| {
            let _ = panic::catch_unwind(|| panic!("on purpose"));
        });
        assert_eq!(caught, Ok(()));
    }
}
