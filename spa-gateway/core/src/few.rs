//! Small maps that take no more room than what is in them: a vector that grows by itself has room for four.

use litemap::LiteMap;

/// Makes a map of entries that come in order.
pub(crate) fn exactly<K: Ord, V>(entries: impl ExactSizeIterator<Item = (K, V)>) -> LiteMap<K, V> {
    let mut map = LiteMap::with_capacity(entries.len());
    map.extend(entries);
    map
}
