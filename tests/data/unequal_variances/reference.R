# Makes the tables beside it: Rscript reference.R
# Welch's t test for two groups, and clubSandwich's CR2 with Satterthwaite degrees of freedom where groups vary unequally.
library(nlme); library(clubSandwich)
set.seed(11)
n <- c(a = 3, b = 8, c = 12)
people <- data.frame(participant = sprintf("%02d", 1:23), group = rep(names(n), n))
people$age <- round(rnorm(23, 40, 12), 1)
spread <- c(a = 3, b = 1, c = 1.5)[people$group]
values <- sapply(1:5, function(v) round(spread * rnorm(23) + (people$group == "b") * 0.5, 4))
colnames(values) <- paste0("v", 1:5)
people <- cbind(people, values)
write.table(people, "participants.tsv", sep = "\t", row.names = FALSE, quote = FALSE)
rows <- list()
for (v in colnames(values)) {
  two <- droplevels(subset(people, group != "c"))
  welch <- t.test(two[[v]][two$group == "b"], two[[v]][two$group == "a"])
  rows[[length(rows) + 1]] <- data.frame(voxel = v, case = "welch_b_a", estimate = unname(diff(rev(welch$estimate))),
    se = welch$stderr, dof = unname(welch$parameter), p = welch$p.value)
  people$y <- people[[v]]
  model <- gls(y ~ 0 + group, data = people, weights = varIdent(form = ~ 1 | group), control = glsControl(tolerance = 1e-12, msTol = 1e-12))
  for (name in c("b_a", "a_bc")) {
    contrast <- list(b_a = c(-1, 1, 0), a_bc = c(1, -0.5, -0.5))[[name]]
    found <- linear_contrast(model, vcov = vcovCR(model, cluster = people$participant, type = "CR2"),
      contrasts = matrix(contrast, 1), test = "Satterthwaite", p_values = TRUE)
    rows[[length(rows) + 1]] <- data.frame(voxel = v, case = paste0("groups_", name), estimate = found$Est,
      se = found$SE, dof = found$df, p = found$p_val)
  }
}
# all maps: groups with known variances (standard deviations 3, 1, 1.5), sessions missing, age beside them
maps <- expand.grid(participant = people$participant, session = c("01", "02"), stringsAsFactors = FALSE)
maps <- merge(maps, people[, c("participant", "group", "age")], by = "participant")
maps <- maps[order(maps$participant, maps$session), ]
maps <- maps[!(maps$session == "02" & maps$participant %in% c("02", "06", "15", "20", "21")), ]
for (v in 1:5) maps[[paste0("v", v)]] <- round(rnorm(nrow(maps)) * c(a = 3, b = 1, c = 1.5)[maps$group], 4)
write.table(maps, "maps.tsv", sep = "\t", row.names = FALSE, quote = FALSE)
maps$w <- c(a = 9, b = 1, c = 2.25)[maps$group]
for (v in paste0("v", 1:5)) {
  maps$y <- maps[[v]]
  model <- lm(y ~ 0 + session + group + age, data = maps, weights = 1 / w)
  robust <- vcovCR(model, cluster = maps$participant, type = "CR2", target = maps$w, inverse_var = FALSE)
  found <- coef_test(model, vcov = robust, test = "Satterthwaite")
  for (name in c("groupb", "age")) {
    row <- which(rownames(found) == name)
    rows[[length(rows) + 1]] <- data.frame(voxel = v, case = paste0("maps_", name), estimate = found$beta[row],
      se = found$SE[row], dof = found$df[row], p = found$p_Satt[row])
  }
}
write.table(format(do.call(rbind, rows), digits = 15), "answers.tsv", sep = "\t", row.names = FALSE, quote = FALSE)
