# Makes the tables beside it: Rscript reference.R (R 4.2.2; lmerTest 3.1-3). With a folder as argument it reads maps.tsv from
# there and writes the answers there.
suppressMessages(library(lmerTest))
folder <- commandArgs(trailingOnly = TRUE); if (length(folder)) setwd(folder[1])

# Values of each participant, session and region, as the program writes them; nine of 54 maps are missing
if (!file.exists("maps.tsv")) {
  set.seed(16)
  maps <- expand.grid(index = 1:4, session_id = sprintf("ses-%02d", 1:3), participant_id = sprintf("sub-%02d", 1:18))
  absent <- c("02-03", "04-02", "05-01", "07-03", "09-03", "11-02", "12-03", "15-02", "16-03")
  key <- paste(substr(maps$participant_id, 5, 6), substr(maps$session_id, 5, 6), sep = "-")
  maps <- maps[!key %in% absent, ]
  maps$region <- c("left frontal", "right frontal", "left parietal", "occipital")[maps$index]
  own <- matrix(rnorm(18 * 4, sd = 0.5), 18)
  session <- as.integer(maps$session_id)
  maps$effect <- round(own[cbind(as.integer(maps$participant_id), maps$index)] + rnorm(nrow(maps), sd = 0.4) +
                       0.2 * maps$index + 0.25 * (maps$index == 3) * (session - 2), 5)
  maps <- maps[, c("participant_id", "session_id", "index", "region", "effect")]
  write.table(maps, "maps.tsv", sep = "\t", row.names = FALSE, quote = FALSE)
}
values <- read.delim("maps.tsv", na.strings = "n/a")

rows <- list()
add <- function(strategy, sessions, region, effect, standard_error, dof, t, p)
  rows[[length(rows) + 1]] <<- data.frame(strategy, sessions, region, effect, standard_error, dof, t, p)
of_t_test <- function(sessions, region, y) {
  found <- t.test(y)
  add("summary-statistics", sessions, region, found$estimate, found$stderr, found$parameter, found$statistic, found$p.value)
}
for (region in unique(values$region)) {
  own <- values[values$region == region, ]
  # a random intercept for each participant, a mean for each session
  model <- lmer(effect ~ session_id + (1 | participant_id), own, control = lmerControl(optCtrl = list(ftol_abs = 1e-14, xtol_abs = 1e-14)))
  weights <- list(mean = c(1, 1/3, 1/3), `ses-03 - ses-01` = c(0, 0, 1))
  for (sessions in names(weights)) {
    found <- contest1D(model, weights[[sessions]])
    add("mixed", sessions, region, found[[1]], found[[2]], found[[3]], found[[4]], found[[5]])
  }
  # one value for each participant: the mean of the sessions there are; the difference of those who have both
  of_t_test("mean", region, tapply(own$effect, own$participant_id, mean))
  wide <- reshape(own[, c("participant_id", "session_id", "effect")], direction = "wide", idvar = "participant_id", timevar = "session_id")
  of_t_test("ses-03 - ses-01", region, na.omit(wide$`effect.ses-03` - wide$`effect.ses-01`))
}
answers <- do.call(rbind, rows)
for (column in c("effect", "standard_error", "dof", "t", "p")) answers[[column]] <- signif(answers[[column]], 10)
write.table(answers, "answers.tsv", sep = "\t", row.names = FALSE, quote = FALSE)
