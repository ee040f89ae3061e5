//! Engine.
#![allow(unused)]
use crate::{Peer, PeerState, Plan, WireguardError};
use std::os::fd::*;
#[derive(Debug)]
pub struct Wireguard(OwnedFd);
const N: WireguardError = WireguardError::NoKernelWireguard;
impl Wireguard {
    pub fn open(n: &str, i: u32) -> Result<Self, WireguardError> { Err(N) }
    pub fn start(p: &Plan<'_>) -> Result<Self, WireguardError> { Err(N) }
    pub fn set_private_key(&mut self, k: &[u8; 32]) -> Result<(), WireguardError> { Err(N) }
    pub fn set_listen_port(&mut self, p: u16) -> Result<(), WireguardError> { Err(N) }
    pub fn put_peer(&mut self, p: &Peer<'_>) -> Result<(), WireguardError> { Err(N) }
    pub fn remove_peer(&mut self, k: &[u8; 32]) -> Result<(), WireguardError> { Err(N) }
    pub fn peer(&mut self, k: &[u8; 32]) -> Result<Option<PeerState>, WireguardError> { Err(N) }
    pub fn peers(&mut self) -> Result<Vec<PeerState>, WireguardError> { Err(N) }
    pub fn check(&mut self) -> Result<(), WireguardError> { Err(N) }
    pub fn end(self) -> Result<(), WireguardError> { Err(N) }
}
impl AsFd for Wireguard { fn as_fd(&self) -> BorrowedFd<'_> { self.0.as_fd() } }
