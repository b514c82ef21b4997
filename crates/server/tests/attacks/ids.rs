//! The ids that there are.

/// Groups, and how many ids each has.
const GROUPS: [(&str, u32); 17] = [
    ("N-AZ", 57),
    ("N-CN", 30),
    ("N-CB", 18),
    ("N-TK", 28),
    ("N-RF", 20),
    ("N-RG", 42),
    ("N-RM", 6),
    ("N-CI", 26),
    ("N-WK", 12),
    ("N-RV", 10),
    ("N-IN", 8),
    ("N-JW", 30),
    ("N-RS", 42),
    ("N-HD", 28),
    ("N-UP", 20),
    ("N-LG", 14),
    ("C", 15),
];

pub fn all() -> Vec<String> {
    let groups = GROUPS.iter();
    let ids = groups.flat_map(|(group, last)| (1..=*last).map(move |n| format!("{group}-{n:02}")));
    ids.collect()
}
