//! Links.
#![allow(unused)]
use crate::WireguardError;
use std::net::IpAddr;
#[derive(Debug)]
pub struct Links;
#[derive(Debug, Clone, Copy)]
pub enum Adoption { Nothing, Wireguard { index: u32 } }
const N: WireguardError = WireguardError::NoKernelWireguard;
pub fn check_name(n: &str) -> Result<(), WireguardError> { Ok(()) }
pub fn check_prefix(n: (IpAddr, u8)) -> Result<(), WireguardError> { Ok(()) }
impl Links {
    pub fn open(n: &str) -> Result<Self, WireguardError> { Err(N) }
    pub fn look_for_ours(&mut self, n: &str) -> Result<Adoption, WireguardError> { Err(N) }
    pub fn delete(&mut self, n: &str, i: u32) -> Result<(), WireguardError> { Err(N) }
    pub fn mark_ours(&mut self, n: &str) -> Result<u32, WireguardError> { Err(N) }
    pub fn add_wireguard(&mut self, n: &str) -> Result<Option<u32>, WireguardError> { Err(N) }
    pub fn add_route(&mut self, n: &str, i: u32, a: IpAddr, p: u8) -> Result<(), WireguardError> { Err(N) }
    pub fn remove_route(&mut self, n: &str, i: u32, a: IpAddr, p: u8) -> Result<(), WireguardError> { Err(N) }
    pub fn set_addresses(&mut self, n: &str, i: u32, a: &[(IpAddr, u8)]) -> Result<(), WireguardError> { Err(N) }
    pub fn bring_up(&mut self, n: &str, i: u32, m: u32, p: u16) -> Result<(), WireguardError> { Err(N) }
}
