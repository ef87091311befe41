//! The statuses that the simulated gateway answers with, as the provider's document lists them.
//!
//! Written apart from the connector's table, on purpose: two readings of the document that agree are worth more than one
//! that is used twice.

/// A `statuscode` in answer to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    /// 預約傳送中
    Scheduled,
    /// 已送達業者
    AtCarrier,
    /// 簡訊發送功能暫時停止服務
    Suspended,
    /// 請輸入帳號
    NoUsername,
    /// 請輸入密碼
    NoPassword,
    /// 帳號、密碼錯誤
    WrongCredentials,
    /// 帳號已達到同時連線數上限
    TooManyConnections,
    /// 系統暫停服務
    OutOfService,
    /// 帳務處理失敗
    NoPoints,
    /// 簡訊已過期
    Overdue,
    /// 簡訊內容不得為空白
    EmptyText,
    /// 無效的手機號碼
    WrongNumber,
    /// 查詢筆數超過上限
    TooManyIds,
    /// 發送檔案過大
    BatchTooLarge,
    /// 參數錯誤
    WrongParameter,
    /// 查無資料
    NothingFound,
}

impl Code {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Scheduled => "0",
            Self::AtCarrier => "1",
            Self::Suspended => "a",
            Self::NoUsername => "c",
            Self::NoPassword => "d",
            Self::WrongCredentials => "e",
            Self::TooManyConnections => "l",
            Self::OutOfService => "r",
            Self::NoPoints => "s",
            Self::Overdue => "t",
            Self::EmptyText => "u",
            Self::WrongNumber => "v",
            Self::TooManyIds => "w",
            Self::BatchTooLarge => "x",
            Self::WrongParameter => "y",
            Self::NothingFound => "z",
        }
    }
}

/// The callback's word for a `StatusFlag`.
pub(crate) const fn word(status_flag: u8) -> &'static str {
    match status_flag {
        4 => "DELIVRD",
        5 => "SYNTAXE",
        6 | 7 => "UNDELIV",
        8 => "EXPIRED",
        9 => "DELETED",
        0..=3 => "ACCEPTD",
        _ => "UNKNOWN",
    }
}
