//! Made-up names of people and schools, plausible in Taiwan. Nobody in particular is meant: they are drawn from lists of
//! frequent surnames and characters.

use rand::RngExt as _;
use rand::seq::IndexedRandom as _;
use rand_chacha::ChaCha8Rng;

use gatebell_engine::registry::Level;

/// Surnames, the frequent ones several times. 歐陽 has two characters, and 𠮷 lies beyond the basic plane, where careless
/// code splits it in two.
const SURNAMES: [&str; 48] = [
    "陳", "陳", "陳", "陳", "林", "林", "林", "黃", "黃", "張", "張", "李", "李", "王", "王", "吳", "吳",
    "劉", "蔡", "楊", "許", "鄭", "謝", "郭", "洪", "曾", "邱", "廖", "賴", "周", "徐", "蘇", "葉", "莊",
    "呂", "江", "何", "蕭", "羅", "高", "潘", "簡", "朱", "鍾", "彭", "游", "歐陽", "𠮷",
];

const GIVEN_FIRST: [&str; 32] = [
    "怡", "家", "佳", "冠", "宇", "宥", "品", "承", "柏", "詩", "雅", "子", "思", "俊", "志", "明", "淑",
    "郁", "庭", "恩", "昱", "芷", "采", "睿", "彥", "禹", "語", "婉", "哲", "欣", "若", "心",
];

const GIVEN_SECOND: [&str; 32] = [
    "婷", "豪", "宏", "廷", "恩", "妤", "涵", "翰", "宇", "安", "潔", "軒", "晴", "瑜", "霖", "傑", "君",
    "芸", "綺", "祐", "諺", "辰", "萱", "樂", "蓁", "澤", "菲", "嘉", "凱", "穎", "瀚", "緯",
];

const SCHOOLS: [&str; 30] = [
    "晨曦",
    "楓橋",
    "月桃",
    "雲杉",
    "海棠",
    "白鷺",
    "螢火",
    "稻香",
    "風鈴",
    "紫藤",
    "望星",
    "聽雨",
    "松果",
    "藍鵲",
    "彩虹",
    "春泥",
    "麥田",
    "石榴",
    "銀杏",
    "青鳥",
    "蒲公英",
    "柚子園",
    "小溪",
    "大榕",
    "南風",
    "秋水",
    "梧桐",
    "蘆葦",
    "茶花",
    "飛魚",
];

/// One surname; a family shares it.
pub(crate) fn surname(random: &mut ChaCha8Rng) -> &'static str {
    SURNAMES.choose(random).copied().unwrap_or("陳")
}

/// A full name under `surname`; one in thirty has a single given character.
pub(crate) fn full_name(random: &mut ChaCha8Rng, surname: &str) -> String {
    let second = GIVEN_SECOND.choose(random).copied().unwrap_or("安");
    if random.random_ratio(1, 30) {
        return format!("{surname}{second}");
    }
    let first = GIVEN_FIRST.choose(random).copied().unwrap_or("子");
    format!("{surname}{first}{second}")
}

/// The name of the school with this `number` from 0; the list repeats with a number after it.
pub(crate) fn school(number: usize, level: Level) -> String {
    let word = SCHOOLS.get(number % SCHOOLS.len()).copied().unwrap_or("晨曦");
    let round = match number / SCHOOLS.len() {
        0 => String::new(),
        repeats => format!("第{}", repeats + 1),
    };
    let kind = match level {
        Level::Elementary => "國小",
        Level::Junior => "國中",
        Level::Senior => "高中",
        Level::Vocational => "高職",
    };
    format!("市立{word}{round}{kind}")
}
