/* What a message between two processes of this machine costs, over ipc as stages do it. Measured once and kept in the cache folder. */
#ifndef WL_COORDINATOR_LINK_SPEED_H
#define WL_COORDINATOR_LINK_SPEED_H

#include "planner.h"

/* Never fails: where it cannot be measured, *source is WL_SPEED_DEFAULT. Takes some milliseconds. */
wl_plan_link wl_link_speed_here (bool fresh, wl_speed_source *source);

/* What stands in for a link between machines that was not measured: gigabit Ethernet. */
wl_plan_link wl_link_speed_assumed (void);

#endif
