//! By which address the other machines reach this one.

use std::io;
use std::net::{IpAddr, ToSocketAddrs, UdpSocket};

/// The address by which the others reach this machine: that of the interface that leads to `host`,
/// where all meet; on that machine itself, whose own name often means its loopback address, that
/// of the interface that leads out, unless all processes are `local`.
///
/// # Errors
/// A name that cannot be resolved, no way there, or no way out.
pub(super) fn own_address(host: &str, port: u16, local: bool) -> io::Result<String> {
    // Reserved for documentation: nobody's, and reached, if at all, over the default route.
    const OUTSIDE: &str = "192.0.2.1";
    let address = address_towards(host, port)?;
    if local || !is_loopback(&address) {
        return Ok(address);
    }
    match address_towards(OUTSIDE, port) {
        Ok(outward) if !is_loopback(&outward) => Ok(outward),
        _ => Err(io::Error::other(format!(
            "{host} is {address} here, which other machines cannot reach; name the network \
             interface that they can with GLOO_SOCKET_IFNAME, or give MASTER_ADDR as an address"
        ))),
    }
}

fn is_loopback(address: &str) -> bool {
    address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// The address of the network interface that leads to `host`: nothing is sent, the system is only
/// asked for the way.
///
/// # Errors
/// A name that cannot be resolved, or no way there.
fn address_towards(host: &str, port: u16) -> io::Result<String> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for target in (host, port).to_socket_addrs()? {
        let any = if target.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let way = UdpSocket::bind(any).and_then(|socket| {
            socket.connect(target)?;
            socket.local_addr()
        });
        match way {
            Ok(address) => return Ok(address.ip().to_string()),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// What this machine is called, for messages.
pub(crate) fn host_name() -> String {
    gethostname::gethostname().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_reached_by_its_own_address() {
        assert_eq!(address_towards("127.0.0.1", 9).unwrap(), "127.0.0.1");
        assert!(address_towards("no.such.host.invalid", 9).is_err());
        assert_eq!(own_address("127.0.0.1", 9, true).unwrap(), "127.0.0.1");
        // With other machines, loopback is never told them.
        match own_address("127.0.0.1", 9, false) {
            Ok(address) => assert!(!is_loopback(&address), "{address}"),
            Err(error) => assert!(error.to_string().contains("GLOO_SOCKET_IFNAME"), "{error}"),
        }
    }
}
