CREATE SCHEMA books;
CREATE DOMAIN books.moment AS timestamptz;
CREATE TYPE books.direction AS ENUM ('IN', 'OUT');
CREATE TABLE books.transfers (
    number character(8) PRIMARY KEY,
    type books.direction NOT NULL,
    reverses text,
    state text NOT NULL,
    value numeric(14, 2) NOT NULL,
    currency character(3) NOT NULL,
    rail text,
    details json NOT NULL,
    is_checked boolean NOT NULL,
    is_test boolean NOT NULL,
    changed_at books.moment NOT NULL
);
INSERT INTO books.transfers VALUES
    ('T-1', 'IN', NULL, 'BOOKED', 1250.00, 'EUR', 'sepa', '{"booked_at": "2026-01-02T03:04:05+01:00", "branch": 7}', true, false, '2026-01-02 02:05:00+00'),
    ('T-2', 'OUT', NULL, 'HELD', 0.10, 'EUR', 'sepa', '{"booked_at": "2026-01-02T03:05:00+01:00", "branch": 7.50}', false, false, '2026-01-02 02:06:00+00'),
    ('T-3', 'IN', NULL, 'BOOKED', 1.00, 'EUR', NULL, '{}', false, true, '2026-01-02 02:07:00+00'),
    ('T-4', 'IN', 'T-1', 'REVERSED', 250.00, 'EUR', 'sepa', '{"booked_at": "2026-01-03T00:00:00+01:00"}', true, false, '2026-01-02 23:00:00+00'),
    ('T-5', 'IN', NULL, 'BOOKED', 'NaN', 'EUR', 'sepa', '{}', false, false, '2026-01-02 23:01:00+00'),
    ('T-6', 'IN', NULL, 'UNHEARD', 5.00, 'EUR', 'sepa', '{}', false, false, '2026-01-02 23:02:00+00');
