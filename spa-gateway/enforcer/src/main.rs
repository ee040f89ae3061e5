//! `spa-enforcer`: the only process with `CAP_NET_ADMIN`.
//!
//! Started by the daemon with its limits as flags and a socket of orders as standard input; see
//! [`spa_order`] for what may be ordered and `serve` for what happens in which order.

use std::process::ExitCode;

mod access;
mod bpf;
mod conntrack;
mod enforcer;
mod filter;
mod flags;
mod forgetter;
mod handover;
mod limits;
mod netlink;
mod nft;
mod orders;
mod privilege;
mod route;
mod say;
mod serve;
mod socket;
#[cfg(target_pointer_width = "64")]
#[cfg(any(
    target_arch = "x86_64",
    target_arch = "aarch64",
    target_arch = "riscv64"
))]
mod system_calls;
mod user;
mod watch;

fn main() -> ExitCode {
    let flags = match flags::Flags::parse(std::env::args_os().skip(1)) {
        Ok(flags) => flags,
        Err(error) => {
            say::say(&error);
            return ExitCode::from(2);
        }
    };
    let outcome = match flags.task {
        flags::Task::Serve => serve::serve(&flags),
        flags::Task::Close => serve::close(&flags),
        flags::Task::Clear => serve::clear(&flags),
        flags::Task::Look => serve::look(&flags),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say::say(&error);
            ExitCode::FAILURE
        }
    }
}
