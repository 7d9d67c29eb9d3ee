//! Which ports a user may name.
//!
//! Pure. Webhook receivers live on the web ports or on high ones; a request line sent to a database,
//! a cache or a cluster's control port can be a command there, so those stay closed.

/// High ports of services that are not web receivers, in ascending order.
const CLOSED: &[u16] = &[
    1080, 1099, 1433, 1434, 1521, 1719, 1720, 1723, 1883, 2049, 2181, 2222, 2375, 2376, 2377, 2379,
    2380, 3260, 3306, 3389, 3659, 4045, 4190, 4369, 5060, 5061, 5432, 5433, 5671, 5672, 5900, 5901,
    5984, 5985, 5986, 6000, 6379, 6380, 6432, 6443, 6566, 6665, 6666, 6667, 6668, 6669, 6679, 6697,
    7000, 7001, 7199, 7474, 7687, 8086, 8125, 8300, 8301, 8302, 8500, 8600, 9042, 9092, 9093, 9160,
    9200, 9300, 9418, 10080, 10250, 10255, 10256, 11211, 15672, 16379, 25672, 26257, 26379, 27017,
    27018, 27019, 28015, 28017, 33060, 50000, 50070, 61613, 61616,
];

pub fn is_open(port: u16) -> bool {
    match port {
        80 | 443 => true,
        0..1024 => false,
        _ => CLOSED.binary_search(&port).is_err(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_sorted_because_it_is_searched() {
        assert!(CLOSED.is_sorted());
        assert!(is_open(8443) && is_open(8080) && is_open(65535) && is_open(1024));
        assert!(!is_open(0) && !is_open(22) && !is_open(6379) && !is_open(61616));
    }
}
