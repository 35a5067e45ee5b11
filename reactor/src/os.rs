//! What std lacks of the operating system.

use std::io;

/// Raises the limit of open descriptors of this process to its hard limit; returns the limit.
///
/// # Errors
///
/// Whatever the system says; `Unsupported` without the feature `os`.
pub fn raise_descriptor_limit() -> io::Result<u64> {
    #[cfg(feature = "os")]
    {
        use rustix::process::{Resource, getrlimit, setrlimit};
        let mut limit = getrlimit(Resource::Nofile);
        if limit.current != limit.maximum {
            limit.current = limit.maximum;
            setrlimit(Resource::Nofile, limit)?;
        }
        // None is "no limit".
        Ok(limit.current.unwrap_or(u64::MAX))
    }
    #[cfg(not(feature = "os"))]
    Err(unsupported("raising the descriptor limit"))
}

/// Returns how many descriptors this process may have open.
///
/// # Errors
///
/// `Unsupported` without the feature `os`.
pub fn descriptor_limit() -> io::Result<u64> {
    #[cfg(feature = "os")]
    {
        use rustix::process::{Resource, getrlimit};
        // None is "no limit".
        Ok(getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX))
    }
    #[cfg(not(feature = "os"))]
    Err(unsupported("reading the descriptor limit"))
}

/// Fills `bytes` with random bytes of the operating system, fit for secrets.
///
/// `getrandom` on Linux with the feature `os`, else `/dev/urandom`.
///
/// # Errors
///
/// Whatever the system says; the content of `bytes` is unspecified then.
pub fn random_bytes(bytes: &mut [u8]) -> io::Result<()> {
    #[cfg(all(feature = "os", target_os = "linux"))]
    {
        use rustix::rand::{GetRandomFlags, getrandom};
        let mut filled = 0;
        while filled < bytes.len() {
            match getrandom(&mut bytes[filled..], GetRandomFlags::empty()) {
                Ok(n) => filled += n,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
    #[cfg(not(all(feature = "os", target_os = "linux")))]
    {
        use std::io::Read;
        std::fs::File::open("/dev/urandom")?.read_exact(bytes)
    }
}

/// Whether an error says that the process, or the whole system, has no descriptor left.
pub fn is_out_of_descriptors(error: &io::Error) -> bool {
    // The same numbers on Linux, the BSDs and macOS; std has no kind for either.
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    matches!(error.raw_os_error(), Some(ENFILE | EMFILE))
}

/// Raises the backlog of a listening socket to `backlog` connections, where the system allows.
pub(crate) fn set_backlog(socket: impl std::os::fd::AsFd, backlog: i32) -> io::Result<()> {
    #[cfg(feature = "os")]
    rustix::net::listen(socket, backlog)?;
    #[cfg(not(feature = "os"))]
    let _ = (socket, backlog);
    Ok(())
}

/// The error of a function that needs the feature `os`.
#[cfg(not(feature = "os"))]
pub(crate) fn unsupported(what: &str) -> io::Error {
    let message = format!("{what} needs the feature `os` of onceloop-reactor");
    io::Error::new(io::ErrorKind::Unsupported, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(feature = "os")]
    #[test]
    fn os_raises_the_descriptor_limit() {
        let limit = raise_descriptor_limit().unwrap();
        assert!(limit >= 64, "{limit}");
        assert_eq!(raise_descriptor_limit().unwrap(), limit);
    }

    #[test]
    fn os_random_bytes_differ() {
        let (mut a, mut b) = ([0; 300], [0; 300]);
        random_bytes(&mut a).unwrap();
        random_bytes(&mut b).unwrap();
        assert_ne!(a, b);
        assert!(a[256..].iter().any(|&byte| byte != 0), "the last bytes are filled too");
        random_bytes(&mut []).unwrap();
    }

    #[test]
    fn os_knows_a_lack_of_descriptors() {
        assert!(is_out_of_descriptors(&io::Error::from_raw_os_error(24)));
        assert!(is_out_of_descriptors(&io::Error::from_raw_os_error(23)));
        assert!(!is_out_of_descriptors(&io::Error::from_raw_os_error(11)));
        assert!(!is_out_of_descriptors(&io::Error::other("none")));
    }
}
