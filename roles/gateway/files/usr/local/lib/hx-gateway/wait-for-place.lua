-- Copyright (c) 2026, hx_infra.llm contributors
-- GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
-- SPDX-License-Identifier: GPL-3.0-or-later
--
-- HAProxy counts a stream until it has closed it, a moment after the client has its last byte. A client
-- that sends its next request at once, on another connection, would find its own place still taken
-- (measured: 10 % of the requests of one that sent them in turn). So it is given that moment.

local STEP_MS, STEPS = 5, 40

core.register_action("hx_wait_for_place", {"http-req"}, function(txn)
  local allowed = tonumber(txn:get_var("txn.parallel"))
  for _ = 1, STEPS do
    core.msleep(STEP_MS)
    if tonumber(txn.c:table_conn_cur(txn:get_var("txn.client"), "hx_clients")) < allowed then
      return
    end
  end
end, 0)
