//! Whether `init` itself came over SSH through an interface it is about to make dark.

use std::fs;
use std::net::IpAddr;

use crate::config::{Interface, PortProtocol, Transport};
use crate::network::Link;

/// The SSH port this very session came through, if it came through a knock interface.
pub(super) fn ssh_through(interfaces: &[Interface], links: &[Link]) -> Option<PortProtocol> {
    let (server, port) = ssh_server(&ssh_connection()?)?;
    links
        .iter()
        .filter(|link| interfaces.iter().any(|name| name.as_str() == link.name))
        .any(|link| link.addresses.contains(&server))
        .then_some(PortProtocol {
            port,
            protocol: Transport::Tcp,
        })
}

/// `SSH_CONNECTION` of this process or of one it descends from: sudo takes it away.
fn ssh_connection() -> Option<String> {
    if let Ok(found) = std::env::var("SSH_CONNECTION") {
        return Some(found);
    }
    let mut process = std::process::id();
    // A chain of ancestors is short; the bound is against a table that changes meanwhile.
    for _ in 0..32 {
        let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
        process = status
            .lines()
            .find_map(|line| line.strip_prefix("PPid:")?.trim().parse().ok())
            .filter(|parent| *parent > 0)?;
        let environment = fs::read(format!("/proc/{process}/environ")).unwrap_or_default();
        let found = environment
            .split(|byte| *byte == 0)
            .find_map(|entry| entry.strip_prefix(b"SSH_CONNECTION="));
        if let Some(found) = found {
            return String::from_utf8(found.to_vec()).ok();
        }
    }
    None
}

/// `CLIENT PORT SERVER PORT`: the server's half.
pub(super) fn ssh_server(connection: &str) -> Option<(IpAddr, u16)> {
    let mut fields = connection.split_whitespace().skip(2);
    let server: IpAddr = fields.next()?.parse().ok()?;
    let port = fields.next()?.parse().ok().filter(|port| *port != 0)?;
    Some((server.to_canonical(), port))
}
