//! `c10k`: see the library beside it, which is all of the program.
#![forbid(unsafe_code)]

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    onceloop_benches::main()
}

#[cfg(not(target_os = "linux"))]
fn main() -> std::process::ExitCode {
    eprintln!("c10k: measures with epoll and /proc, which only Linux has");
    std::process::ExitCode::FAILURE
}
