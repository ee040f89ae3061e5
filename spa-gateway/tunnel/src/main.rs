//! `spa-tunnel`: WireGuard for one TUN device, where the kernel has none. Started by spa-wireguard, never by hand.
//!
//! It is given a TUN device and asked by messages ([`spa_wireguard::message`]) over its standard input, holds no
//! capability, opens nothing but its UDP port, and ends when its owner does.

#![forbid(unsafe_code)]

mod confine;
mod device;
mod owner;
mod port;
mod readiness;
mod serve;
mod wireguard;

use std::process::ExitCode;

use owner::Owner;

/// Started with the wrong thing as its input.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let Some(owner) = Owner::on_stdin() else {
        eprintln!(
            "spa-tunnel: started by spa-gateway and spa themselves; there is nothing to run by hand"
        );
        return ExitCode::from(USAGE);
    };
    // One thread: with two the same bytes cost the same processor time on two cores, and 1 MB more memory.
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return stopped(&format!("cannot start: {error}")),
    };
    match runtime.block_on(serve::serve(owner)) {
        Ok(()) => ExitCode::SUCCESS,
        // Its owner was told why and says it once.
        Err(serve::Stop::Told) => ExitCode::FAILURE,
        Err(stop) => stopped(&stop.to_string()),
    }
}

fn stopped(why: &str) -> ExitCode {
    eprintln!("spa-tunnel: {why}");
    ExitCode::FAILURE
}
